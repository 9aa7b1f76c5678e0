output "policies" {
  description = "The policies as JSON, by name: what the role may do."
  value       = local.policies

  precondition {
    condition     = length(local.policies) > 0
    error_message = "No source is named: one of logs_insights, lake, athena, event_history and assume_role_arns is needed."
  }
}

output "trust" {
  description = "The trust policy as JSON: who may assume the role; null where nobody is named."
  value = length(local.trusts) == 0 ? null : jsonencode({
    Version   = "2012-10-17"
    Statement = flatten([for document in local.trusts : document.Statement])
  })
}
