{{- /* The labels by which a service's pods are found. Takes {root, name}. */}}
{{- define "outrider.selector" -}}
app.kubernetes.io/name: outrider
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end }}

{{- define "outrider.labels" -}}
{{ include "outrider.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{- define "outrider.claim" -}}
{{ .Values.compileCache.claim | default (printf "%s-compile-cache" .Release.Name) }}
{{- end }}

{{- /* The settings of a service: what the chart knows, and over it what the values say. Takes {root, name, service}. */}}
{{- define "outrider.settings" -}}
{{- $own := dict "grace_seconds" .service.graceSeconds }}
{{- if eq .name "gateway" }}
  {{- $_ := merge $own (dict "host" "0.0.0.0" "port" .service.port "start_timeout_seconds" .service.startupSeconds) }}
  {{- if .root.Values.apiKey.secret }}
    {{- $_ := set $own "api_key_file" (printf "/var/run/outrider/%s" .root.Values.apiKey.key) }}
  {{- end }}
  {{- range $name := list "target" "draft" }}
    {{- $port := (index $.root.Values.services $name).port }}
    {{- $_ := set $own $name (printf "dns:///%s-%s:%v" $.root.Release.Name $name $port) }}
  {{- end }}
{{- else }}
  {{- $_ := merge $own (dict "address" (printf "0.0.0.0:%v" .service.port) "metrics_port" 9090) }}
{{- end }}
{{- merge (deepCopy .service.settings) $own | toJson }}
{{- end }}
