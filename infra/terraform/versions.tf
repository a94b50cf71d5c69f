# The store of Solon on AWS: its bucket, one role for each stage, and a record of who touched what. docs/terraform.md
#
# Validated by Terraform 1.11.4 with provider 5.100.0, and planned and applied on moto, an emulator.
# Never planned or applied on AWS itself.

terraform {
  required_version = ">= 1.6"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.80"
    }
  }
}

provider "aws" {
  region = var.region
}
