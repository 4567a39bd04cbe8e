{{/* Labels of every object. Names are fixed: a node has one daemon. */}}
{{- define "mesh.labels" -}}
app.kubernetes.io/name: mesh
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "mesh.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* What a container may do: .Values of the root, and its .capabilities. */}}
{{- define "mesh.securityContext" -}}
runAsUser: 0
runAsGroup: 0
readOnlyRootFilesystem: true
privileged: {{ .Values.privileged }}
allowPrivilegeEscalation: {{ .Values.privileged }}
{{- if not .Values.privileged }}
capabilities:
  drop: [ALL]
  add: {{ .capabilities | toJson }}
{{- end }}
{{- end }}

{{/* The port of config.admin.listen, or of its default, for probes. They ask 127.0.0.1: it has to be heard there. */}}
{{- define "mesh.adminPort" -}}
{{- $admin := (.Values.config | default dict).admin | default dict }}
{{- $listen := hasKey $admin "listen" | ternary $admin.listen "127.0.0.1:9901" | toString }}
{{- if not (regexMatch `^(127\.0\.0\.1|0\.0\.0\.0|\[::\]):[1-9][0-9]*$` $listen) }}
{{- $wanted := "127.0.0.1:PORT, 0.0.0.0:PORT or [::]:PORT" }}
{{- fail (printf "config.admin.listen: probes ask 127.0.0.1, so write %s, not %s" $wanted $listen) }}
{{- end }}
{{- splitList ":" $listen | last }}
{{- end }}

{{- define "mesh.podSecurityContext" -}}
appArmorProfile:
  type: Unconfined
seLinuxOptions:
  type: spc_t
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "mesh.volumeMounts" -}}
- name: config
  mountPath: /etc/mesh
  readOnly: true
- name: cgroup
  mountPath: /sys/fs/cgroup
- name: bpffs
  mountPath: /sys/fs/bpf
  mountPropagation: {{ .Values.privileged | ternary "Bidirectional" "HostToContainer" }}
- name: state
  mountPath: /var/lib/mesh
- name: run
  mountPath: /run/mesh
{{- end }}

{{- define "mesh.volumes" -}}
- name: config
  configMap:
    name: mesh
- name: cgroup
  hostPath:
    path: /sys/fs/cgroup
    type: Directory
- name: bpffs
  hostPath:
    path: /sys/fs/bpf
    type: Directory
- name: state
  hostPath:
    path: /var/lib/mesh
    type: DirectoryOrCreate
- name: run
  hostPath:
    path: /run/mesh
    type: DirectoryOrCreate
{{- end }}

{{/* On which nodes. */}}
{{- define "mesh.placement" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
