output "store" {
  description = "What run.store is set to."
  value       = "s3://${aws_s3_bucket.store.id}${var.prefix == "" ? "" : "/"}${var.prefix}"
}

output "role_arns" {
  description = "By stage, and for align, amend, publish, read and gc."
  value       = { for name, role in aws_iam_role.solon : name => role.arn }
}

output "service_accounts" {
  description = "By the same names: the Kubernetes service account, and the annotation that gives it its role."
  value = {
    for name, role in aws_iam_role.solon : name => {
      name        = local.service_accounts[name]
      namespace   = var.namespace
      annotations = { "eks.amazonaws.com/role-arn" = role.arn }
    }
  }
}

output "audit_bucket" {
  description = "Where the record of who touched what is."
  value       = aws_s3_bucket.audit.id
}
