variable "name" {
  description = "The name of the trail, and of the role by which it delivers to CloudWatch Logs."
  type        = string
  default     = "cloudtrail-tls"

  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9._-]{1,53}[A-Za-z0-9]$", var.name))
    error_message = "name has 3 to 55 letters, digits and ._-, and begins and ends with a letter or digit."
  }
}

variable "bucket" {
  description = "The bucket that the trail delivers its files to; it is made."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", var.bucket))
    error_message = "bucket is a name of S3: 3 to 63 small letters, digits, dots and hyphens."
  }
}

variable "log_group" {
  description = "The log group that the trail delivers to; it is made."
  type        = string
  default     = "aws-cloudtrail-logs"

  validation {
    condition     = can(regex("^[A-Za-z0-9_/.#-]{1,512}$", var.log_group))
    error_message = "log_group has 1 to 512 letters, digits and _/.#-."
  }
}

variable "retention_days" {
  description = "How long the log group keeps events. The exporter reads each once: it needs them as long as it may be down."
  type        = number
  default     = 14

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.retention_days)
    error_message = "retention_days is one of those that CloudWatch Logs has, such as 7, 14, 30 or 90."
  }
}

variable "organization_id" {
  description = "The id of the organization whose accounts the trail is for, such as o-abcdef1234; null for this account alone."
  type        = string
  default     = null

  validation {
    condition     = var.organization_id == null ? true : can(regex("^o-[a-z0-9]{10,32}$", var.organization_id))
    error_message = "organization_id is o- and 10 to 32 small letters and digits."
  }
}

variable "tags" {
  description = "Tags of all that is made."
  type        = map(string)
  default     = {}
}
