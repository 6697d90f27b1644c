{{- define "plumbline.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-plumbline" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}
{{- define "plumbline.selector" -}}
app.kubernetes.io/name: plumbline
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}
{{- define "plumbline.labels" -}}
{{ include "plumbline.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}
{{- define "plumbline.image" -}}
{{ index .root.Values.image .target }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}
{{- define "plumbline.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end }}
{{- define "plumbline.container" -}}
imagePullPolicy: {{ .Values.image.pullPolicy }}
# What a container said at its end is in `kubectl describe pod`.
terminationMessagePolicy: FallbackToLogsOnError
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}
{{- define "plumbline.models" -}}
{{- if .Values.repository.sync.enabled }}emptyDir: {}{{ else }}persistentVolumeClaim: {claimName: {{ .Values.repository.existingClaim | default (printf "%s-models" (include "plumbline.name" .)) }}}{{ end }}
{{- end }}
{{- define "plumbline.logs" -}}
persistentVolumeClaim: {claimName: {{ .Values.log.existingClaim | default (printf "%s-log" (include "plumbline.name" .)) }}}
{{- end }}
{{- define "plumbline.oneNode" -}}
{{- if or (eq .Values.log.accessMode "ReadWriteOnce") (and (not .Values.repository.sync.enabled) (eq .Values.repository.accessMode "ReadWriteOnce")) }}yes{{ end }}
{{- end }}
{{- define "plumbline.beside" -}}
{{- if include "plumbline.oneNode" . }}
affinity:
  podAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector: {matchLabels: {app.kubernetes.io/name: plumbline, app.kubernetes.io/instance: {{ .Release.Name }}, app.kubernetes.io/component: serve}}
{{- end }}
{{- end }}
{{- define "plumbline.sync" -}}
{{- if .Values.repository.sync.enabled }}
initContainers:
  - name: sync
    image: {{ .Values.repository.sync.image }}
    command: {{ toJson .Values.repository.sync.command }}
    env: [{name: HOME, value: /tmp}]
    {{- with .Values.repository.sync.secret }}
    envFrom: [{secretRef: {name: {{ . }}}}]
    {{- end }}
    {{- include "plumbline.container" . | nindent 4 }}
    volumeMounts:
      - {name: models, mountPath: /models}
      - {name: tmp, mountPath: /tmp}
{{- end }}
{{- end }}
{{- define "plumbline.check" -}}
{{- $v := .Values }}
{{- $most := $v.serve.replicas }}
{{- if $v.autoscaling.enabled }}{{ $most = $v.autoscaling.maxReplicas }}{{ end }}
{{- if $v.keda.enabled }}{{ $most = $v.keda.maxReplicas }}{{ end }}
{{- $least := $v.serve.replicas }}
{{- if $v.autoscaling.enabled }}{{ $least = $v.autoscaling.minReplicas }}{{ end }}
{{- if $v.keda.enabled }}{{ $least = $v.keda.minReplicas }}{{ end }}
{{- if and $v.autoscaling.enabled $v.keda.enabled }}{{ fail "autoscaling.enabled and keda.enabled exclude each other: set one of them to false." }}{{ end }}
{{- if and (gt (int $most) 1) (include "plumbline.oneNode" .) }}{{ fail (printf "up to %d servers share volumes: set log.accessMode and repository.accessMode to ReadWriteMany (or repository.sync.enabled to true), or run one server." (int $most)) }}{{ end }}
{{- if and $v.pdb.enabled (ge (int $v.pdb.minAvailable) (int $least)) }}{{ fail (printf "pdb.minAvailable is %d and there may be only %d servers, so no node could be drained: set it lower, or run more servers." (int $v.pdb.minAvailable) (int $least)) }}{{ end }}
{{- if and (eq (toString $v.serve.settings.device) "cuda") (lt (int $v.serve.gpus) 1) }}{{ fail "serve.settings.device is cuda and serve.gpus is 0: set serve.gpus to 1." }}{{ end }}
{{- if and $v.keda.enabled (eq (int $v.keda.minReplicas) 0) (not $v.keda.query) }}{{ fail "keda.minReplicas is 0 and keda.query is empty: the servers' own metrics end with the last server, so give a query of the ingress, or set minReplicas to 1." }}{{ end }}
{{- if $v.retrain.enabled }}
{{- if not $v.monitor.enabled }}{{ fail "retrain.enabled needs the monitor: set monitor.enabled to true." }}{{ end }}
{{- if not $v.retrain.model }}{{ fail "retrain.enabled needs retrain.model: the name of the model to retrain." }}{{ end }}
{{- if not $v.retrain.dataClaim }}{{ fail "retrain.enabled needs training data: set retrain.dataClaim to a claim that holds retrain.train and retrain.eval." }}{{ end }}
{{- if $v.repository.sync.enabled }}{{ fail "retrain.enabled publishes into the repository's volume, and repository.sync.enabled gives each pod its own: set one of them to false." }}{{ end }}
{{- end }}
{{- if and $v.repository.sync.enabled (not (and $v.repository.sync.image $v.repository.sync.command)) }}{{ fail "repository.sync.enabled needs repository.sync.image and repository.sync.command." }}{{ end }}
{{- if and $v.httpRoute.enabled (not $v.httpRoute.gateway) }}{{ fail "httpRoute.enabled needs httpRoute.gateway: the name of a Gateway." }}{{ end }}
{{- if and $v.monitor.enabled (or $v.monitor.settings.webhook_urls $v.monitor.settings.retrain_url) (not $v.monitor.webhookSecret) (not $v.monitor.settings.webhook_unsigned) }}{{ fail "monitor.settings sends events and monitor.webhookSecret is empty: make a Secret with the key webhook_secret and name it." }}{{ end }}
{{- end }}
