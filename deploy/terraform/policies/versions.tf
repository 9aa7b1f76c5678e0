# No provider: it computes documents, and asks nobody.
terraform {
  required_version = ">= 1.3"
}
