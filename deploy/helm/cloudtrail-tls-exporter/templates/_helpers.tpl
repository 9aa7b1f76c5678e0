{{/* Names, labels, and what is refused. */}}

{{- define "exporter.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "exporter.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains (include "exporter.name" .) .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "exporter.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "exporter.selector" -}}
app.kubernetes.io/name: {{ include "exporter.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Of an object, with its own: (list . .Values.service.labels). The values' win, but for what selects. */}}
{{- define "exporter.labels" -}}
{{- $context := first . -}}
{{- with $context -}}
{{- $chart := dict "app.kubernetes.io/version" .Chart.AppVersion "app.kubernetes.io/managed-by" .Release.Service -}}
{{- $_ := set $chart "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_") -}}
{{- $selector := include "exporter.selector" . | fromYaml -}}
{{- $own := index (concat (rest $) (list dict)) 0 -}}
{{- toYaml (mergeOverwrite $chart .Values.commonLabels $own $selector) -}}
{{- end -}}
{{- end -}}

{{- define "exporter.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "exporter.fullname" .) "default") -}}
{{- end -}}

{{- define "exporter.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* A probe: (dict "context" $ "values" .Values.livenessProbe "path" "/-/healthy") */}}
{{- define "exporter.probe" -}}
{{- $port := empty .context.Values.webConfig.existingSecret | ternary "metrics" "probe" -}}
{{- toYaml (merge (dict "httpGet" (dict "path" .path "port" $port)) .values) -}}
{{- end -}}

{{/* What values.schema.json cannot say, or not with its reason. */}}
{{- define "exporter.refuse" -}}
{{- with .Values -}}
{{- if gt (int .replicaCount) 1 -}}
{{- fail "replicaCount: must be 0 or 1: two exporters would ask AWS twice, pay twice, and count every call twice" -}}
{{- end -}}
{{- if not .image.repository -}}
{{- fail "image.repository: is missing: no image is published, build deploy/docker/Dockerfile, push it, and say here where it is" -}}
{{- end -}}
{{- if and .existingConfigMap .existingSecret -}}
{{- fail "existingConfigMap, existingSecret: only one of them can hold config.toml" -}}
{{- end -}}
{{- if not (or .existingConfigMap .existingSecret (trim .config)) -}}
{{- fail "config: is empty, and neither existingConfigMap nor existingSecret is set" -}}
{{- end -}}
{{- if and .aws.roleArn (not .serviceAccount.create) -}}
{{- fail "aws.roleArn: would be ignored, as serviceAccount.create is false: annotate that service account yourself" -}}
{{- end -}}
{{- if and .state.ephemeral .state.existingClaim -}}
{{- fail "state.existingClaim: would be ignored, as state.ephemeral is true" -}}
{{- end -}}
{{- if eq (int .webConfig.probePort) 10013 -}}
{{- fail "webConfig.probePort: 10013 is the port of /metrics" -}}
{{- end -}}
{{- if and .serviceMonitor.enabled .podMonitor.enabled -}}
{{- fail "serviceMonitor.enabled, podMonitor.enabled: only one of them, or every call is counted twice" -}}
{{- end -}}
{{- end -}}
{{- end -}}
