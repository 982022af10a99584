{{- define "noetl-worker.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "noetl-worker.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "noetl-worker.labels" -}}
{{ include "noetl-worker.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "noetl-worker.bridgeSelector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}-bridge
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "noetl-worker.bridgeLabels" -}}
{{ include "noetl-worker.bridgeSelector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "noetl-worker.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "noetl-worker.name" .) }}{{ else }}{{ .Values.serviceAccount.name | default "default" }}{{ end }}
{{- end }}

{{- define "noetl-worker.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "noetl-worker.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}

{{- define "noetl-worker.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{- /* Where the pods run, and the job that goes before them. */ -}}
{{- define "noetl-worker.place" -}}
{{- range $name := list "imagePullSecrets" "priorityClassName" "nodeSelector" "tolerations" "affinity" }}
{{- with get $.Values $name }}
{{ dict $name . | toYaml }}
{{- end }}
{{- end }}
{{- end }}

{{- /* What the worker and the job that makes the durable both read. */ -}}
{{- define "noetl-worker.env" -}}
{{- $own := dict
  "NATS_URL" "nats.url" "NATS_STREAM" "nats.stream" "NATS_CONSUMER" "nats.consumer"
  "NATS_FILTER_SUBJECT" "nats.filterSubject" "NOETL_SERVER_URL" "server.url" "WORKER_MAX_CONCURRENT" "slots"
  "NOETL_WORKER_PROCESSES" "processes"
  "NOETL_WORKER_DRAIN_TIMEOUT_S" "drainTimeoutSeconds" "NOETL_WORKER_OUTBOX_DIR" "outbox"
  "NOETL_WORKER_KUBERNETES_OWN_SECRETS" "secrets" -}}
{{- range $name, $value := $own }}
{{- if hasKey $.Values.settings $name }}{{ fail (printf "settings.%s: the chart has a value for it, %s" $name $value) }}{{ end }}
{{- end }}
{{- range $name := list "WORKER_ID" "WORKER_METRICS_BIND" }}
{{- if hasKey $.Values.settings $name }}{{ fail (printf "settings.%s: the pod has its own" $name) }}{{ end }}
{{- end }}
{{- if regexMatch "//([^/@,]*@)?(localhost|127[.]|\\[::1\\])" .Values.nats.url }}{{ fail "nats.url: localhost is the pod itself: name the service of NATS" }}{{ end }}
{{- if and .Values.keda.enabled (gt (int .Values.keda.minReplicas) (int .Values.keda.maxReplicas)) }}{{ fail (printf "keda.minReplicas: %d is above keda.maxReplicas, %d" (int .Values.keda.minReplicas) (int .Values.keda.maxReplicas)) }}{{ end }}
{{- /* All slots of all pods, and what is being reported beside them: with less, full pods keep the others idle. */}}
{{- $pods := ternary .Values.keda.maxReplicas .Values.replicas .Values.keda.enabled }}
{{- $settings := merge (dict) .Values.settings (dict
  "NOETL_WORKER_MAX_ACK_PENDING" (max 1000 (mul 2 .Values.slots .Values.processes $pods) | toString)
  "NATS_URL" .Values.nats.url
  "NATS_STREAM" .Values.nats.stream
  "NATS_CONSUMER" .Values.nats.consumer
  "NOETL_SERVER_URL" .Values.server.url
  "WORKER_MAX_CONCURRENT" (.Values.slots | toString)
  "NOETL_WORKER_PROCESSES" (.Values.processes | toString)
  "NOETL_WORKER_DRAIN_TIMEOUT_S" (.Values.drainTimeoutSeconds | toString)
  "NOETL_WORKER_OUTBOX_DIR" "/var/lib/noetl-worker/outbox"
  "WORKER_METRICS_BIND" "0.0.0.0:9090") -}}
{{- if .Values.nats.filterSubject }}{{- $_ := set $settings "NATS_FILTER_SUBJECT" .Values.nats.filterSubject }}{{- end }}
{{- with include "noetl-worker.ownSecrets" . }}{{- $_ := set $settings "NOETL_WORKER_KUBERNETES_OWN_SECRETS" . }}{{- end }}
{{- range $name := keys $settings | sortAlpha }}
{{- $value := get $settings $name }}
{{- /* Helm reads each number of a file as a float, and would write a large one as 1e+06. */}}
{{- if kindIs "float64" $value }}{{ if eq $value (floor $value) }}{{ $value = printf "%.0f" $value }}{{ end }}{{ end }}
- { name: {{ $name }}, value: {{ $value | toString | quote }} }
{{- end }}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* The Secrets of the pods: a step of kind container or script could name them, and never gets them. */ -}}
{{- define "noetl-worker.ownSecrets" -}}
{{- $names := list }}
{{- range concat .Values.secrets .Values.imagePullSecrets }}{{ $names = append $names .name }}{{ end }}
{{- range .Values.env }}{{ $names = append $names (dig "valueFrom" "secretKeyRef" "name" "" .) }}{{ end }}
{{- range .Values.volumes }}
{{- $names = append $names (dig "secret" "secretName" "" .) }}
{{- range dig "projected" "sources" list . }}{{ $names = append $names (dig "secret" "name" "" .) }}{{ end }}
{{- end }}
{{- $names | compact | uniq | join "," }}
{{- end }}

{{- define "noetl-worker.envFrom" -}}
{{- range .Values.secrets }}
- secretRef: {{ toJson . }}
{{- end }}
{{- end }}
