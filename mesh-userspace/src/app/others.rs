//! What programs of others at our hooks mean for us.

use crate::kernel::OtherProgram;

/// What is worth a word about one; `None`: it is not in the way.
pub(super) fn warning(other: &OtherProgram) -> Option<String> {
    let OtherProgram { hook, id, runs_first, mesh, .. } = other;
    let name = if other.name.is_empty() { "without a name" } else { &other.name };
    if *mesh {
        return Some(format!(
            "another mesh has program {name} (id {id}) at {hook}: connections are translated by whichever runs first; \
             `mesh unload` with its configuration removes it"
        ));
    }
    (*runs_first && hook.starts_with("cgroup/connect")).then(|| {
        format!(
            "program {name} (id {id}) runs before ours at {hook}: addresses that it changes are not seen as services \
             any more"
        )
    })
}
