# What the exporter reads; each source that is null has no policy.

variable "logs_insights" {
  description = "The log groups that are asked, by ARN without `:*`, and the KMS keys that they are under."
  type = object({
    log_group_arns = list(string)
    kms_key_arns   = optional(list(string), [])
  })
  default = null

  validation {
    condition = var.logs_insights == null ? true : length(var.logs_insights.log_group_arns) > 0 && alltrue([
      for arn in var.logs_insights.log_group_arns :
      can(regex("^arn:[a-z-]+:logs:[a-z0-9-]+:[0-9]{12}:log-group:[^:*\"]+$", arn))
    ])
    error_message = "log_group_arns has at least one ARN of a log group, without `:*` at its end."
  }
  validation {
    condition     = var.logs_insights == null ? true : alltrue([for arn in var.logs_insights.kms_key_arns : can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[a-z0-9-]+$", arn))])
    error_message = "kms_key_arns are ARNs of KMS keys, not of aliases."
  }
}

variable "lake" {
  description = "The event data stores of CloudTrail Lake that are asked, by ARN, and the KMS keys that they are under."
  type = object({
    event_data_store_arns = list(string)
    kms_key_arns          = optional(list(string), [])
  })
  default = null

  validation {
    condition = var.lake == null ? true : length(var.lake.event_data_store_arns) > 0 && alltrue([
      for arn in var.lake.event_data_store_arns :
      can(regex("^arn:[a-z-]+:cloudtrail:[a-z0-9-]+:[0-9]{12}:eventdatastore/[a-f0-9-]{36}$", arn))
    ])
    error_message = "event_data_store_arns has at least one ARN of an event data store."
  }
  validation {
    condition     = var.lake == null ? true : alltrue([for arn in var.lake.kms_key_arns : can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[a-z0-9-]+$", arn))])
    error_message = "kms_key_arns are ARNs of KMS keys, not of aliases."
  }
}

variable "athena" {
  description = "The table that Athena is asked about, where its logs lie (not with layout = \"lake\"), and where results go."
  type = object({
    partition            = optional(string, "aws")
    region               = string
    account              = string
    layout               = optional(string, "timestamp")
    workgroup            = optional(string, "primary")
    catalog              = optional(string, "AwsDataCatalog")
    database             = optional(string, "default")
    table                = string
    trail_bucket         = optional(string)
    trail_prefix         = optional(string, "")
    trail_kms_key_arns   = optional(list(string), [])
    results_bucket       = string
    results_prefix       = optional(string, "")
    results_kms_key_arns = optional(list(string), [])
  })
  default = null

  validation {
    condition     = var.athena == null ? true : contains(["timestamp", "year_month_day", "lake"], var.athena.layout)
    error_message = "layout is timestamp, year_month_day or lake."
  }
  validation {
    condition     = var.athena == null ? true : can(regex("^[0-9]{12}$", var.athena.account)) && can(regex("^[a-z0-9-]+$", var.athena.region))
    error_message = "account has 12 digits, and region is a Region's name."
  }
  validation {
    condition     = var.athena == null ? true : (var.athena.layout == "lake") == (var.athena.trail_bucket == null)
    error_message = "trail_bucket is for layouts other than lake, and is needed there."
  }
  validation {
    condition = var.athena == null ? true : alltrue([
      for prefix in [var.athena.trail_prefix, var.athena.results_prefix] : prefix == "" || can(regex("^[^/*\"][^*\"]*/$", prefix))
    ])
    error_message = "trail_prefix and results_prefix are empty, or end with a slash and begin with none."
  }
  validation {
    condition = var.athena == null ? true : alltrue([
      for name in [var.athena.workgroup, var.athena.catalog, var.athena.database, var.athena.table, var.athena.results_bucket, coalesce(var.athena.trail_bucket, "none")] :
      can(regex("^[A-Za-z0-9_.:-]+$", name))
    ])
    error_message = "workgroup, catalog, database, table and buckets are names, without `*` and slashes."
  }
  validation {
    condition = var.athena == null ? true : alltrue([
      for arn in concat(var.athena.trail_kms_key_arns, var.athena.results_kms_key_arns) :
      can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[a-z0-9-]+$", arn))
    ])
    error_message = "trail_kms_key_arns and results_kms_key_arns are ARNs of KMS keys, not of aliases."
  }
}

variable "event_history" {
  description = "Whether the event history is read."
  type        = bool
  default     = false
}

variable "assume_role_arns" {
  description = "Roles of other accounts that the exporter assumes, as `roles` in its configuration names them."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for arn in var.assume_role_arns : can(regex("^arn:[a-z-]+:iam::[0-9]{12}:role/[A-Za-z0-9_+=,.@/-]+$", arn))])
    error_message = "assume_role_arns are ARNs of roles."
  }
}

variable "doctor" {
  description = "Whether what the command `doctor` alone asks for is allowed too."
  type        = bool
  default     = true
}

# Who may assume the role; nobody where only the policies are used.

variable "irsa" {
  description = "A service account of EKS, by the cluster's OIDC provider."
  type = object({
    oidc_provider_arn = string
    namespace         = string
    service_account   = optional(string, "cloudtrail-tls-exporter")
  })
  default = null

  validation {
    condition     = var.irsa == null ? true : can(regex("^arn:[a-z-]+:iam::[0-9]{12}:oidc-provider/[A-Za-z0-9_./-]+$", var.irsa.oidc_provider_arn))
    error_message = "oidc_provider_arn is the ARN of an OIDC provider of IAM."
  }
  validation {
    condition     = var.irsa == null ? true : alltrue([for name in [var.irsa.namespace, var.irsa.service_account] : can(regex("^[a-z0-9.-]+$", name))])
    error_message = "namespace and service_account are names of Kubernetes, without `*`."
  }
}

variable "pod_identity" {
  description = "A service account of EKS, by pod identity."
  type = object({
    cluster_arn     = string
    namespace       = string
    service_account = optional(string, "cloudtrail-tls-exporter")
  })
  default = null

  validation {
    condition     = var.pod_identity == null ? true : can(regex("^arn:[a-z-]+:eks:[a-z0-9-]+:[0-9]{12}:cluster/[A-Za-z0-9_-]+$", var.pod_identity.cluster_arn))
    error_message = "cluster_arn is the ARN of an EKS cluster."
  }
  validation {
    condition     = var.pod_identity == null ? true : alltrue([for name in [var.pod_identity.namespace, var.pod_identity.service_account] : can(regex("^[a-z0-9.-]+$", name))])
    error_message = "namespace and service_account are names of Kubernetes, without `*`."
  }
}

variable "ec2" {
  description = "Whether instances of EC2 of the role's account may assume it, by an instance profile."
  type        = bool
  default     = false
}

variable "ecs" {
  description = "Tasks of ECS, by the account that they run in, which is the role's."
  type = object({
    account = string
  })
  default = null

  validation {
    condition     = var.ecs == null ? true : can(regex("^[0-9]{12}$", var.ecs.account))
    error_message = "The account of ecs has 12 digits."
  }
}

variable "cross_account" {
  description = "The exporter, where it runs in another account: the role that it runs as, and the external id that its configuration has."
  type = object({
    exporter_role_arn = string
    external_id       = string
  })
  default = null

  validation {
    condition     = var.cross_account == null ? true : can(regex("^arn:[a-z-]+:iam::[0-9]{12}:role/[A-Za-z0-9_+=,.@/-]+$", var.cross_account.exporter_role_arn))
    error_message = "exporter_role_arn is the ARN of a role."
  }
  validation {
    condition     = var.cross_account == null ? true : can(regex("^[A-Za-z0-9_+=,.@:/-]+$", var.cross_account.external_id)) && length(var.cross_account.external_id) >= 2 && length(var.cross_account.external_id) <= 1224
    error_message = "external_id has 2 to 1224 letters, digits and _+=,.@:/-."
  }
}
