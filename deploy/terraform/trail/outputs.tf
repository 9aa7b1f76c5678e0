output "log_group_arn" {
  description = "The ARN of the log group, as the module `policies` takes it."
  value       = aws_cloudwatch_log_group.trail.arn
}

output "log_group" {
  description = "The name of the log group, as the exporter's configuration takes it."
  value       = aws_cloudwatch_log_group.trail.name
}

output "bucket" {
  description = "The bucket of the trail's files."
  value       = aws_s3_bucket.trail.id
}
