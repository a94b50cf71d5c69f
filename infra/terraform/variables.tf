variable "region" {
  description = "Where the buckets are."
  type        = string
}

variable "bucket" {
  description = "Name of the store's bucket, which this makes; the record of who touched it goes to <bucket>-audit."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,55}[a-z0-9]$", var.bucket))
    error_message = "Expected 3 to 57 characters of a-z 0-9 -, so that -audit still fits."
  }
}

variable "prefix" {
  description = "The store is s3://<bucket>/<prefix>; empty: the whole bucket."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^([A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*)?$", var.prefix))
    error_message = "Expected names of A-Z a-z 0-9 . _ - with single slashes between them."
  }
}

variable "oidc_provider_arn" {
  description = "IAM's OpenID Connect provider of the Kubernetes cluster."
  type        = string
}

variable "namespace" {
  description = "Namespace in which stages run."
  type        = string
  default     = "solon"
}

variable "key_arn" {
  description = "KMS key for the store's objects; null: keys that S3 manages."
  type        = string
  default     = null
}

variable "undo_days" {
  description = "How long what gc removed, or somebody deleted, can be brought back."
  type        = number
  default     = 30
}

variable "audit_days" {
  description = "How long the record of who touched what is kept; nobody can shorten it without a special permission."
  type        = number
  default     = 400
}
