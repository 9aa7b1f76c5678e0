output "arn" {
  description = "The ARN of the role, once its policies are there."
  value       = aws_iam_role.exporter.arn
  depends_on  = [aws_iam_role_policy.exporter]
}

output "name" {
  description = "The name of the role."
  value       = aws_iam_role.exporter.name
}
