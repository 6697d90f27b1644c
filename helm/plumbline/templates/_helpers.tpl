{{/* Name of all objects of the release; parts append -serve, -monitor, … */}}
{{- define "plumbline.name" -}}
{{- $named := ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) }}
{{- .Values.fullnameOverride | default $named | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* Name, namespace and labels of an object. Takes root, part, and name where it differs from the part. */}}
{{- define "plumbline.metadata" -}}
name: {{ include "plumbline.name" .root }}-{{ .name | default .part }}
namespace: {{ .root.Release.Namespace }}
labels: {{- include "plumbline.labels" . | nindent 2 }}
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
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{/* The parts that run: serve, and monitor and retrain where they are on. */}}
{{- define "plumbline.parts" -}}
serve{{ if .Values.monitor.enabled }} monitor{{ end }}{{ if .Values.retrain.enabled }} retrain{{ end }}
{{- end }}

{{- define "plumbline.image" -}}
{{- $of := index .root.Values .part }}
{{- with .root.Values.image.registry }}{{ . }}/{{ end }}{{ $of.image }}
{{- if $of.digest }}@{{ $of.digest }}{{ else }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}{{ end }}
{{- end }}

{{/* What every pod has in common; the fields are those of the Pod Security Standard "restricted". */}}
{{- define "plumbline.pod" -}}
serviceAccountName: {{ include "plumbline.name" .root }}-{{ .part }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- $of := index .root.Values .part }}
{{- with $of.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with $of.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $of.nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with $of.tolerations }}
tolerations: {{ toJson . }}
{{- end }}
{{- end }}

{{- define "plumbline.container" -}}
imagePullPolicy: {{ .Values.image.pullPolicy }}
terminationMessagePolicy: FallbackToLogsOnError # `kubectl describe pod` shows a container's last words
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* Settings as variables. Numbers as they were written: 10737418240 is not 1.073741824e+10. */}}
{{- define "plumbline.settings" -}}
{{- range $name, $value := . }}
PLUMBLINE_{{ upper $name }}: {{ if kindIs "slice" $value }}{{ join "," $value | quote }}{{ else if kindIs "string" $value }}{{ $value | quote }}{{ else }}{{ toJson $value | quote }}{{ end }}
{{- end }}
{{- end }}

{{/* The volumes of models, log and short-lived files. */}}
{{- define "plumbline.volumes" -}}
- name: models
  {{- if .Values.repository.sync.enabled }}
  emptyDir: {}
  {{- else }}
  persistentVolumeClaim: {claimName: {{ .Values.repository.existingClaim | default (printf "%s-models" (include "plumbline.name" .)) }}}
  {{- end }}
{{- if .Values.log.enabled }}
- name: log
  persistentVolumeClaim: {claimName: {{ .Values.log.existingClaim | default (printf "%s-log" (include "plumbline.name" .)) }}}
{{- end }}
- {name: tmp, emptyDir: {}}
{{- end }}

{{/* The container that copies the models from an object store, where it is asked for. */}}
{{- define "plumbline.sync" -}}
{{- with .Values.repository.sync }}
{{- if .enabled }}
initContainers:
  - name: sync
    image: {{ .image }}
    command: {{ toJson .command }}
    env: [{name: HOME, value: /tmp}]
    {{- with .secret }}
    envFrom: [{secretRef: {name: {{ . }}}}]
    {{- end }}
    {{- include "plumbline.container" $ | nindent 4 }}
    volumeMounts:
      - {name: models, mountPath: /models}
      - {name: tmp, mountPath: /tmp}
{{- end }}
{{- end }}
{{- end }}

{{/* "yes" where a volume can be had on one node only. */}}
{{- define "plumbline.oneNode" -}}
{{- $log := and .Values.log.enabled (eq .Values.log.accessMode "ReadWriteOnce") }}
{{- $models := and (not .Values.repository.sync.enabled) (eq .Values.repository.accessMode "ReadWriteOnce") }}
{{- if or $log $models }}yes{{ end }}
{{- end }}

{{/* Keeps a pod on the node of the servers, where the volumes are. */}}
{{- define "plumbline.beside" -}}
{{- if include "plumbline.oneNode" . }}
affinity:
  podAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels: {{- include "plumbline.selector" (dict "root" . "part" "serve") | nindent 12 }}
{{- end }}
{{- end }}

{{/* Ports of URLs, as a list in JSON. Takes a list of URLs. */}}
{{- define "plumbline.ports" -}}
{{- $ports := list }}
{{- range . }}
{{- $url := urlParse . }}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" }}
{{- $ports = append $ports ($port | default (ternary "80" "443" (eq $url.scheme "http")) | int) }}
{{- end }}
{{- $ports | uniq | toJson }}
{{- end }}
