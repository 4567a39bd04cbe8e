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
{{- end }}
