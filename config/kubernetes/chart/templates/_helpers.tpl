{{- define "larder.labels" -}}
app.kubernetes.io/name: larder
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- define "larder.injector.labels" -}}
app.kubernetes.io/name: larder-injector
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* Which way pods get their sidecar: policy, webhook or none. */ -}}
{{- define "larder.injection" -}}
{{- if ne .Values.injection "auto" -}}
{{ .Values.injection }}
{{- else if .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy" -}}
policy
{{- else -}}
webhook
{{- end -}}
{{- end }}

{{- define "larder.image" -}}
{{ .Values.sidecar.image | default (printf "ghcr.io/larder/larder:%s" .Chart.AppVersion) }}
{{- end }}

{{- /* Pods that ask for larder, when they are made. */ -}}
{{- define "larder.pods" -}}
objectSelector:
  matchLabels:
    larder.dev/inject: enabled
{{- end }}

{{- define "larder.rules" -}}
- apiGroups: [""]
  apiVersions: ["v1"]
  operations: ["CREATE"]
  resources: ["pods"]
  scope: Namespaced
{{- end }}

{{- /*
CEL: whether a setting may have a value. `key` and `value` are expressions. A quantity that does not parse
must never reach a patch: the API server would answer 500, whatever failurePolicy says.
*/ -}}
{{- define "larder.valid" -}}
({{ .key }} == 'image' ? size({{ .value }}) <= 512 && {{ .value }}.matches('^[A-Za-z0-9][A-Za-z0-9._:/@-]*$')
 : {{ .value }} == '' ? {{ .key }} in ['env-from', 'cpu-limit', 'disk', 'store-ports', 'log-level']
 : {{ .key }} in ['config', 'env-from']
   ? size({{ .value }}) <= 253 && {{ .value }}.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')
 : {{ .key }} == 'store-ports' ? {{ .value }}.matches('^[0-9]{1,5}(,[0-9]{1,5})*$')
 : {{ .key }} == 'log-level' ? {{ .value }} in ['off', 'error', 'warn', 'info', 'debug', 'trace']
 : isQuantity({{ .value }}) && quantity({{ .value }}).isGreaterThan(quantity('0')))
{{- end }}

{{- /* The platform's settings, as JSON: texts, of which those that are not set are empty. */ -}}
{{- define "larder.settings" -}}
{{- $settings := dict "image" (include "larder.image" .) }}
{{- range list "config" "env-from" "cpu-request" "cpu-limit" "memory-request" "memory-limit" "disk" "store-ports" "log-level" }}
{{- $_ := set $settings . (get $.Values.sidecar . | default "" | toString) }}
{{- end }}
{{- toJson $settings }}
{{- end }}
