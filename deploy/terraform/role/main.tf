# The role that the exporter runs as, or that it assumes in another account.

resource "aws_iam_role" "exporter" {
  name                 = var.name
  description          = "Reads CloudTrail for cloudtrail-tls-exporter"
  assume_role_policy   = var.documents.trust
  permissions_boundary = var.permissions_boundary
  tags                 = var.tags
}

resource "aws_iam_role_policy" "exporter" {
  for_each = var.documents.policies

  name   = each.key
  role   = aws_iam_role.exporter.id
  policy = each.value
}
