# Fills in the documents of deploy/iam. A list makes one policy with a list of resources.

locals {
  iam = "${path.module}/../../iam"

  # By the name of the policy: its placeholders, once for each element of a list.
  values = concat(
    [for source in [var.logs_insights] : {
      name   = "logs_insights"
      values = [for arn in source.log_group_arns : { log_group_arn = arn }]
    } if source != null],
    [for source in [var.logs_insights] : {
      name   = "kms/logs_insights"
      values = [for arn in source.kms_key_arns : { kms_key_arn = arn }]
    } if source != null],
    [for source in [var.lake] : {
      name   = "lake"
      values = [for arn in source.event_data_store_arns : { event_data_store_arn = arn }]
    } if source != null],
    [for source in [var.lake] : {
      name   = "kms/lake"
      values = [for arn in source.kms_key_arns : { kms_key_arn = arn }]
    } if source != null],
    [for source in [var.athena] : {
      name   = source.layout == "lake" ? "athena_lake" : "athena"
      values = [source]
    } if source != null],
    [for source in [var.athena] : {
      name   = "kms/athena_logs"
      values = [for arn in source.trail_kms_key_arns : { kms_key_arn = arn }]
    } if source != null],
    [for source in [var.athena] : {
      name   = "kms/athena_results"
      values = [for arn in source.results_kms_key_arns : { kms_key_arn = arn }]
    } if source != null],
    [for wanted in [var.event_history] : { name = "event_history", values = [{}] } if wanted],
    [{
      name   = "assume_roles"
      values = [for arn in var.assume_role_arns : { role_arn = arn }]
    }],
  )

  documents = {
    for each in local.values : each.name => [
      for values in each.values : jsondecode(templatefile("${local.iam}/policies/${each.name}.json", values))
    ] if length(each.values) > 0
  }

  policies = {
    for name, documents in local.documents : replace(name, "/", "_") => jsonencode({
      Version = documents[0].Version
      Statement = [
        for index, statement in documents[0].Statement : merge(statement, {
          Resource = distinct(flatten([for document in documents : document.Statement[index].Resource]))
        }) if var.doctor || statement.Sid != "ForDoctor"
      ]
    })
  }

  trusts = concat(
    [for who in [var.irsa] : jsondecode(templatefile("${local.iam}/trust/irsa.json", merge(who, {
      oidc_provider = split("oidc-provider/", who.oidc_provider_arn)[1]
    }))) if who != null],
    [for who in [var.pod_identity] : jsondecode(templatefile("${local.iam}/trust/pod_identity.json", who)) if who != null],
    [for wanted in [var.ec2] : jsondecode(templatefile("${local.iam}/trust/ec2.json", {})) if wanted],
    [for who in [var.ecs] : jsondecode(templatefile("${local.iam}/trust/ecs.json", who)) if who != null],
    [for who in [var.cross_account] : jsondecode(templatefile("${local.iam}/trust/cross_account.json", who)) if who != null],
  )
}
