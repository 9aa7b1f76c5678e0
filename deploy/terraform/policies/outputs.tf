output "policies" {
  description = "The policies as JSON, by name: what the role may do."
  value       = local.policies

  precondition {
    condition     = length(local.policies) > 0
    error_message = "No source is named: one of logs_insights, lake, athena, event_history and assume_role_arns is needed."
  }
}

output "trust" {
  description = "The trust policy as JSON: who may assume the role."
  value = jsonencode({
    Version   = "2012-10-17"
    Statement = flatten([for document in local.trusts : document.Statement])
  })

  precondition {
    condition     = length(local.trusts) > 0
    error_message = "Nobody may assume the role: one of irsa, pod_identity and cross_account is needed."
  }
}
