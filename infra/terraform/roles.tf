# One role for each stage and each other kind of process, for the Kubernetes service account of the same name.

locals {
  # Which policy, and for `work`: datasets that it makes, reads and trains, and tags that it moves.
  roles = {
    for name, role in jsondecode(file("${path.module}/roles.json")) : name => {
      policy = try(role.policy, "work")
      makes  = try(role.makes, [])
      reads  = try(role.reads, [])
      trains = try(role.trains, [])
      tags   = try(role.tags, [])
    }
  }
  service_accounts = { for name in keys(local.roles) : name => "solon-${replace(name, "_", "-")}" }
}

resource "aws_iam_role" "solon" {
  for_each = local.roles
  name     = "${var.bucket}-${replace(each.key, "_", "-")}"

  assume_role_policy = templatefile("${path.module}/policies/trust.json.tftpl", {
    oidc_provider   = var.oidc_provider_arn
    oidc_issuer     = split(":oidc-provider/", var.oidc_provider_arn)[1]
    namespace       = var.namespace
    service_account = local.service_accounts[each.key]
  })

  lifecycle {
    precondition {
      condition     = length("${var.bucket}-${each.key}") <= 64
      error_message = "A role's name has up to 64 characters; choose a shorter bucket name."
    }
  }
}

resource "aws_iam_role_policy" "store" {
  for_each = local.roles
  name     = "store"
  role     = aws_iam_role.solon[each.key].id

  policy = templatefile("${path.module}/policies/${each.value.policy}.json.tftpl", merge(
    { for name, value in each.value : name => value if name != "policy" },
    { bucket = aws_s3_bucket.store.arn, root = local.root },
  ))
}

resource "aws_iam_role_policy" "key" {
  for_each = var.key_arn == null ? {} : local.roles
  name     = "key"
  role     = aws_iam_role.solon[each.key].id
  policy   = templatefile("${path.module}/policies/key.json.tftpl", { key = var.key_arn })
}
