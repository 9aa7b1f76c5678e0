variable "name" {
  description = "The name of the role."
  type        = string
  default     = "cloudtrail-tls-exporter"

  validation {
    condition     = can(regex("^[A-Za-z0-9_+=,.@-]{1,64}$", var.name))
    error_message = "name has 1 to 64 letters, digits and _+=,.@-."
  }
}

variable "documents" {
  description = "The module `policies`, whole: what the role may do, and who may assume it."
  type = object({
    policies = map(string)
    trust    = string
  })

  validation {
    condition     = var.documents.trust != null
    error_message = "Nobody may assume the role: the module `policies` needs one of irsa, pod_identity, ec2, ecs and cross_account."
  }
}

variable "permissions_boundary" {
  description = "The ARN of a policy that bounds what the role may do; null for none."
  type        = string
  default     = null
}

variable "tags" {
  description = "Tags of the role."
  type        = map(string)
  default     = {}
}
