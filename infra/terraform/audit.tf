# Who touched what: every write and delete in the store, and every read of a model, by role and pod.

data "aws_caller_identity" "here" {}
data "aws_partition" "here" {}

locals {
  trail_name = "${var.bucket}-trail"
  trail_arn  = "arn:${data.aws_partition.here.partition}:cloudtrail:${var.region}:${data.aws_caller_identity.here.account_id}:trail/${local.trail_name}"
}

resource "aws_s3_bucket" "audit" {
  bucket              = "${var.bucket}-audit"
  object_lock_enabled = true
}

resource "aws_s3_bucket_versioning" "audit" {
  bucket = aws_s3_bucket.audit.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_object_lock_configuration" "audit" {
  bucket     = aws_s3_bucket.audit.id
  depends_on = [aws_s3_bucket_versioning.audit]

  rule {
    default_retention {
      mode = "GOVERNANCE"
      days = var.audit_days
    }
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "audit" {
  bucket = aws_s3_bucket.audit.id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_public_access_block" "audit" {
  bucket                  = aws_s3_bucket.audit.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_lifecycle_configuration" "audit" {
  bucket     = aws_s3_bucket.audit.id
  depends_on = [aws_s3_bucket_versioning.audit]

  rule {
    id     = "old records"
    status = "Enabled"

    filter {
      prefix = ""
    }

    expiration {
      days = var.audit_days + 1
    }

    noncurrent_version_expiration {
      noncurrent_days = 1
    }
  }
}

resource "aws_s3_bucket_policy" "audit" {
  bucket     = aws_s3_bucket.audit.id
  depends_on = [aws_s3_bucket_public_access_block.audit]

  policy = templatefile("${path.module}/policies/audit_bucket.json.tftpl", {
    bucket  = aws_s3_bucket.audit.arn
    trail   = local.trail_arn
    account = data.aws_caller_identity.here.account_id
  })
}

resource "aws_cloudtrail" "store" {
  name                       = local.trail_name
  s3_bucket_name             = aws_s3_bucket.audit.id
  enable_log_file_validation = true
  depends_on                 = [aws_s3_bucket_policy.audit]

  advanced_event_selector {
    name = "writes and deletes"

    field_selector {
      field  = "eventCategory"
      equals = ["Data"]
    }

    field_selector {
      field  = "resources.type"
      equals = ["AWS::S3::Object"]
    }

    field_selector {
      field  = "readOnly"
      equals = ["false"]
    }

    field_selector {
      field       = "resources.ARN"
      starts_with = ["${aws_s3_bucket.store.arn}/"]
    }
  }

  advanced_event_selector {
    name = "reads of models"

    field_selector {
      field  = "eventCategory"
      equals = ["Data"]
    }

    field_selector {
      field  = "resources.type"
      equals = ["AWS::S3::Object"]
    }

    field_selector {
      field  = "readOnly"
      equals = ["true"]
    }

    field_selector {
      field       = "resources.ARN"
      starts_with = ["${aws_s3_bucket.store.arn}/${local.root}v1/datasets/models/"]
    }
  }
}
