# What goes by itself. Data, chunks and resume points go by `solon datasets gc` alone: only it knows what is needed.

locals {
  # Rewritten every 60 and 15 seconds while somebody lives: an old one is a dead process's. gc's grace is a day.
  signs_of_life = toset(["v1/pins/", "v1/claims/"])

  # Rewritten or deleted all the time; what they were yesterday is of no use to anybody.
  restless = toset(concat(
    ["v1/pins/", "v1/claims/", "v1/attempts/", "probe/"],
    [for name in distinct(flatten([for role in local.roles : role.trains])) : "v1/datasets/${name}/checkpoints/"],
  ))
}

resource "aws_s3_bucket_lifecycle_configuration" "store" {
  bucket     = aws_s3_bucket.store.id
  depends_on = [aws_s3_bucket_versioning.store]

  rule {
    id     = "unfinished uploads"
    status = "Enabled"

    filter {
      prefix = local.root
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }

  rule {
    id     = "what was deleted"
    status = "Enabled"

    filter {
      prefix = local.root
    }

    noncurrent_version_expiration {
      noncurrent_days = var.undo_days
    }

    expiration {
      expired_object_delete_marker = true
    }
  }

  dynamic "rule" {
    for_each = local.restless

    content {
      id     = "before ${rule.value}"
      status = "Enabled"

      filter {
        prefix = "${local.root}${rule.value}"
      }

      noncurrent_version_expiration {
        noncurrent_days = 1
      }
    }
  }

  dynamic "rule" {
    for_each = local.signs_of_life

    content {
      id     = "old ${rule.value}"
      status = "Enabled"

      filter {
        prefix = "${local.root}${rule.value}"
      }

      expiration {
        days = 30
      }
    }
  }
}
