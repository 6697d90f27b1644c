{{/* Values that are right by themselves and wrong together. Each message says what to change. */}}
{{- define "plumbline.checks" -}}
{{- $v := .Values }}
{{- $least := int $v.serve.replicas }}
{{- $most := $least }}
{{- if $v.autoscaling.enabled }}
{{- $least = int $v.autoscaling.minReplicas }}
{{- $most = int $v.autoscaling.maxReplicas }}
{{- if gt $least $most }}
{{- fail (printf "autoscaling.minReplicas is %d and autoscaling.maxReplicas is %d: set the first to no more than the second." $least $most) }}
{{- end }}
{{- if not (or $v.autoscaling.cpu $v.autoscaling.queueTokens $v.autoscaling.latencySeconds) }}
{{- fail "autoscaling.enabled needs something to look at: set autoscaling.cpu, autoscaling.queueTokens or autoscaling.latencySeconds above 0." }}
{{- end }}
{{- end }}
{{- if $v.keda.enabled }}
{{- if $v.autoscaling.enabled }}
{{- fail "autoscaling.enabled and keda.enabled exclude each other: set one of them to false." }}
{{- end }}
{{- $least = int $v.keda.minReplicas }}
{{- $most = int $v.keda.maxReplicas }}
{{- if gt $least $most }}
{{- fail (printf "keda.minReplicas is %d and keda.maxReplicas is %d: set the first to no more than the second." $least $most) }}
{{- end }}
{{- if and (eq $least 0) (not $v.keda.query) }}
{{- fail "keda.minReplicas is 0 and keda.query is empty: the servers' own metrics end with the last server, and nothing would wake the next. Give a query of the ingress, or set keda.minReplicas to 1." }}
{{- end }}
{{- end }}
{{- if and (gt $most 1) (include "plumbline.oneNode" .) }}
{{- fail (printf "%d servers share volumes: set log.accessMode, and repository.accessMode unless repository.sync is enabled, to ReadWriteMany, or run one server." $most) }}
{{- end }}
{{- if and $v.pdb.enabled (ge (int $v.pdb.minAvailable) $least) }}
{{- fail (printf "pdb.minAvailable is %d and there may be only %d servers, so that no node could be drained: set it lower, or run more servers." (int $v.pdb.minAvailable) $least) }}
{{- end }}
{{- if and (eq (toString $v.serve.settings.device) "cuda") (not $v.serve.gpus) }}
{{- fail "serve.settings.device is cuda and serve.gpus is 0: set serve.gpus to 1." }}
{{- end }}
{{- if and $v.serve.gpus (eq (toString $v.serve.settings.device) "cpu") }}
{{- fail "serve.gpus is above 0 and serve.settings.device is cpu: set serve.gpus to 0, or leave the device out." }}
{{- end }}
{{- if and $v.serve.settings.log_upload (not $v.log.enabled) }}
{{- fail "serve.settings.log_upload copies the log, and log.enabled is false: set it to true." }}
{{- end }}
{{- if and $v.monitor.enabled (not $v.log.enabled) }}
{{- fail "monitor.enabled needs the log: set log.enabled to true, or monitor.enabled to false." }}
{{- end }}
{{- if $v.monitor.enabled }}
{{- $m := $v.monitor.settings }}
{{- if and (or $m.webhook_urls $m.retrain_url) (not $v.monitor.webhookSecret) (not $m.webhook_unsigned) }}
{{- fail "monitor.settings sends events, and monitor.webhookSecret is empty: name a Secret with the key webhook_secret, or set monitor.settings.webhook_unsigned to true." }}
{{- end }}
{{- if and (or $m.retrain_github $m.retrain_airflow) (not $v.monitor.retrainTokenSecret) }}
{{- fail "monitor.settings asks GitHub or Airflow for retrains, and monitor.retrainTokenSecret is empty: name a Secret with the key retrain_token." }}
{{- end }}
{{- range list "retrain_command" "retrain_url" "retrain_github" "retrain_airflow" }}
{{- if and $v.retrain.enabled (index $m .) }}
{{- fail (printf "a retrain is asked for in one way: set retrain.enabled to false, or leave monitor.settings.%s out." .) }}
{{- end }}
{{- end }}
{{- end }}
{{- if $v.retrain.enabled }}
{{- if not $v.monitor.enabled }}
{{- fail "retrain.enabled needs the monitor: set monitor.enabled to true." }}
{{- end }}
{{- if not $v.retrain.model }}
{{- fail "retrain.enabled needs retrain.model: the name of the model to retrain." }}
{{- end }}
{{- if not $v.retrain.dataClaim }}
{{- fail "retrain.enabled needs retrain.dataClaim: a claim that holds the files retrain.train and retrain.eval." }}
{{- end }}
{{- if $v.repository.sync.enabled }}
{{- fail "a retrain publishes into the repository's volume, and with repository.sync.enabled each pod has its own: set retrain.enabled or repository.sync.enabled to false." }}
{{- end }}
{{- end }}
{{- if and $v.repository.sync.enabled (not (and $v.repository.sync.image $v.repository.sync.command)) }}
{{- fail "repository.sync.enabled needs repository.sync.image and repository.sync.command." }}
{{- end }}
{{- if and $v.httpRoute.enabled (not $v.httpRoute.gateway) }}
{{- fail "httpRoute.enabled needs httpRoute.gateway: the name of a Gateway." }}
{{- end }}
{{- end }}
