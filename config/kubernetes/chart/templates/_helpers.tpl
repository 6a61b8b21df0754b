{{- /* Labels of an object; the argument is a list of the context and of the component that it is part of. */ -}}
{{- define "larder.labels" -}}
{{- $context := index . 0 -}}
{{ include "larder.selector" . }}
app.kubernetes.io/version: {{ $context.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $context.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $context.Chart.Name $context.Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* Those of them by which objects find pods: they never change. */ -}}
{{- define "larder.selector" -}}
app.kubernetes.io/name: larder
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- /*
Which way pods get their sidecar: policy, webhook or none. The cluster is asked for the kind, not for its
version: without a cluster to ask, the version is that of Helm, and the webhook is right everywhere.
*/ -}}
{{- define "larder.injection" -}}
{{- if ne .Values.injection "auto" -}}
{{ .Values.injection }}
{{- else if .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy" -}}
policy
{{- else -}}
webhook
{{- end -}}
{{- end }}

{{- /* A word that may be `off`, which YAML takes for false. */ -}}
{{- define "larder.word" -}}
{{ kindIs "bool" . | ternary "off" . }}
{{- end }}

{{- /*
What is done about pods without larder: warn, deny, off, or old where the cluster cannot check. It is the version
that counts, and not the kind, which Helm knows of no cluster that it is not connected to.
*/ -}}
{{- define "larder.check" -}}
{{- $check := include "larder.word" .Values.check -}}
{{- $kind := .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy" -}}
{{- if eq $check "off" -}}
off
{{- else if or $kind (semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version) -}}
{{ $check }}
{{- else -}}
old
{{- end -}}
{{- end }}

{{- define "larder.image" -}}
{{ .Values.sidecar.image | default (printf "larder:%s" .Chart.AppVersion) }}
{{- end }}

{{- /* Pods that ask for larder, when they are made, in namespaces where they may. */ -}}
{{- define "larder.pods" -}}
namespaceSelector:
  {{- with .Values.namespaceSelector }}
  {{- toYaml . | nindent 2 }}
  {{- else }}
  matchExpressions:
    - key: kubernetes.io/metadata.name
      operator: NotIn
      values: {{- list "kube-system" "kube-node-lease" .Release.Namespace | uniq | toYaml | nindent 8 }}
  {{- end }}
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

{{- /* CEL: the keys of the settings. */ -}}
{{- define "larder.keys" -}}
['image', 'config', 'env-from', 'cpu-request', 'cpu-limit', 'memory-request', 'memory-limit', 'disk',
'store-ports', 'log-level']
{{- end }}

{{- /*
CEL: whether a pod has requests or limits as a whole. Then the API server takes no container for which there is no
room in them, and by now requests that it did not have are the sum of its containers'.
*/ -}}
{{- define "larder.own-resources" -}}
size(object.spec.?resources.?requests.orValue({})) + size(object.spec.?resources.?limits.orValue({})) > 0
{{- end }}

{{- /*
CEL: whether a setting may have a value. `key` and `value` are expressions. A quantity that does not parse
must never reach a patch: the API server would answer 500, whatever failurePolicy says. One with a huge
exponent would cost it seconds.
*/ -}}
{{- define "larder.valid" -}}
({{ .key }} == 'image' ? size({{ .value }}) <= 512 && {{ .value }}.matches('^[A-Za-z0-9][A-Za-z0-9._:/@-]*$')
 : {{ .value }} == '' ? {{ .key }} in ['env-from', 'cpu-limit', 'disk', 'store-ports', 'log-level']
 : {{ .key }} in ['config', 'env-from'] ? size({{ .value }}) <= 253
   && {{ .value }}.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')
 : {{ .key }} == 'store-ports' ? {{ .value }}.matches('^[0-9]{1,5}(,[0-9]{1,5})*$')
 : {{ .key }} == 'log-level' ? {{ .value }} in ['off', 'error', 'warn', 'info', 'debug', 'trace']
 : size({{ .value }}) <= 32 && !{{ .value }}.matches('[eE][-+]?[0-9]{3}')
   && isQuantity({{ .value }}) && quantity({{ .value }}).isGreaterThan(quantity('0')))
{{- end }}

{{- /*
The platform's settings, as JSON: texts, of which those that are not set are empty. Whole numbers are written out:
Helm has read them as floats.
*/ -}}
{{- define "larder.settings" -}}
{{- $settings := dict "image" (include "larder.image" .) }}
{{- range list "config" "env-from" "cpu-request" "cpu-limit" "memory-request" "memory-limit" "disk" "store-ports" "log-level" }}
{{- $value := get $.Values.sidecar . }}
{{- if and (kindIs "float64" $value) (eq (floor $value) $value) }}
{{- $value = int64 $value }}
{{- end }}
{{- $value = kindIs "bool" $value | ternary "off" $value }}
{{- $_ := set $settings . (kindIs "invalid" $value | ternary "" (toString $value)) }}
{{- end }}
{{- toJson $settings }}
{{- end }}
