# A trail for all Regions, which delivers to a bucket of its own, and to a log group for Logs Insights.

data "aws_caller_identity" "this" {}
data "aws_partition" "this" {}
data "aws_region" "this" {}

locals {
  account   = data.aws_caller_identity.this.account_id
  partition = data.aws_partition.this.partition
  region    = data.aws_region.this.name
  # Whose folders and log streams there are: this account's, and the organization's.
  owners = concat([local.account], var.organization_id == null ? [] : [var.organization_id])

  values = [for owner in local.owners : {
    owner     = owner
    bucket    = var.bucket
    log_group = aws_cloudwatch_log_group.trail.arn
    region    = local.region
    partition = local.partition
    # Written out, for the trail is made after the bucket's policy.
    trail = "arn:${local.partition}:cloudtrail:${local.region}:${local.account}:trail/${var.name}"
  }]
  bucket   = [for values in local.values : jsondecode(templatefile("${path.module}/bucket.json", values))]
  delivery = [for values in local.values : jsondecode(templatefile("${path.module}/delivery.json", values))]
}

resource "aws_s3_bucket" "trail" {
  bucket = var.bucket
  tags   = var.tags
}

resource "aws_s3_bucket_public_access_block" "trail" {
  bucket                  = aws_s3_bucket.trail.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_policy" "trail" {
  bucket = aws_s3_bucket.trail.id
  policy = jsonencode({
    Version = local.bucket[0].Version
    Statement = [for index, statement in local.bucket[0].Statement : merge(statement, {
      Resource = distinct(flatten([for document in local.bucket : document.Statement[index].Resource]))
    })]
  })
}

resource "aws_cloudwatch_log_group" "trail" {
  name              = var.log_group
  retention_in_days = var.retention_days
  tags              = var.tags
}

# No condition: AWS says that aws:SourceArn and aws:SourceAccount are not supported for this role.
resource "aws_iam_role" "delivery" {
  name               = "${var.name}-delivery"
  description        = "CloudTrail delivers to CloudWatch Logs"
  assume_role_policy = file("${path.module}/delivery_trust.json")
  tags               = var.tags
}

resource "aws_iam_role_policy" "delivery" {
  name = "delivery"
  role = aws_iam_role.delivery.id
  policy = jsonencode({
    Version = local.delivery[0].Version
    Statement = [for index, statement in local.delivery[0].Statement : merge(statement, {
      Resource = distinct(flatten([for document in local.delivery : document.Statement[index].Resource]))
    })]
  })
}

resource "aws_cloudtrail" "trail" {
  name                          = var.name
  s3_bucket_name                = aws_s3_bucket.trail.id
  cloud_watch_logs_group_arn    = "${aws_cloudwatch_log_group.trail.arn}:*"
  cloud_watch_logs_role_arn     = aws_iam_role.delivery.arn
  is_multi_region_trail         = true
  include_global_service_events = true
  is_organization_trail         = var.organization_id != null
  enable_log_file_validation    = true
  tags                          = var.tags

  depends_on = [aws_s3_bucket_policy.trail, aws_iam_role_policy.delivery]
}
