//! From an object to programs that wait to be put to work: tables made or adopted, programs loaded one by one.

use super::{
    Capacity, Kernel, KernelError, Pins, Tables, Verdict,
    error::chain,
    grow,
    live::Live,
    offsets,
    pinned::Pinned,
    pins::{Found, Shape},
    programs::{ITERATOR, PROGRAMS},
    runs::EarlierRuns,
    shapes::shapes,
    sys,
    verbosity::Unpinned,
    versions,
};
use aya::{
    Ebpf, EbpfLoader,
    programs::{Program, ProgramError},
};
use mesh_common::{
    names,
    settings::{Settings, flags},
};
use std::sync::{Arc, Mutex};

/// What to load, and where.
pub struct Options<'a> {
    /// The eBPF object: [`super::OBJECT`], or a test's own.
    pub object: &'a [u8],
    /// Where maps and links are pinned; `None`: nowhere, and all is gone from the kernel with the [`Kernel`].
    pub pins: Option<&'a Pins>,
    /// The least that the tables must hold; adopted ones may hold more.
    pub capacity: Capacity,
    /// The most verbose level of the programs' own logs, 0 (none) to 5 (trace). What is above costs nothing.
    pub log_level: u8,
    /// Settings the hooks find from the first moment.
    pub settings: Settings,
}

/// Loads the object: its tables are there, made or adopted; its programs wait for [`Kernel::attach`].
///
/// An optional program that this kernel refuses is left out and named in [`Kernel::programs`].
///
/// # Errors
/// [`KernelError`]: what is wrong and what to do; nothing new stays in the kernel then.
pub fn load(options: &Options<'_>) -> Result<Kernel, KernelError> {
    let kernel = try_load(options)?;
    let required = kernel.verdicts().into_iter().find(|v| v.required && v.refused.is_some());
    let Some(Verdict { name, hook, refused: Some(why), .. }) = required else { return Ok(kernel) };
    if let Some(pins) = options.pins.filter(|_| !kernel.adopted) {
        pins.remove_maps()?;
    }
    Err(KernelError::Required { program: name, hook, why })
}

/// As [`load`], but without required programs too, where the kernel refuses them: [`Kernel::verdicts`] has them all.
///
/// # Errors
/// [`KernelError`], where not even the tables can be had.
pub fn try_load(options: &Options<'_>) -> Result<Kernel, KernelError> {
    let mut notes = Vec::new();
    let mut bypass = options.pins.is_some_and(versions::bypass);
    let shapes = shapes(&options.capacity);
    let mut sizes = None;
    if let Some(pins) = options.pins {
        pins.create()?;
        grow::recover(pins)?;
        match pins.check(&shapes) {
            Found::Nothing => {}
            Found::Fit(found) => sizes = Some(grown(pins, &shapes, found)?),
            Found::Unfit(why) => {
                notes.push(format!("pinned tables were not adopted, their counters start again: {why}"));
                let settings = Tables::pinned_settings(&pins.map(names::SETTINGS));
                bypass |= settings.is_some_and(|s| s.flags & flags::BYPASS != 0);
                // Programs that are attached go on with the old tables until they are replaced.
                pins.remove_maps()?;
            }
        }
    }
    let adopted = sizes.is_some();
    let sizes = sizes.unwrap_or_else(|| shapes.iter().map(|s| s.entries).collect());
    let offsets = offsets::find(&mut notes);
    let loaded = load_object(options, &shapes, &sizes, &offsets);
    if let Some(pins) = options.pins.filter(|_| loaded.is_err() && !adopted) {
        pins.remove_maps()?;
    }
    let (mut ebpf, tables, missing) = loaded?;
    let unpinned = Unpinned::of(&ebpf)?;
    let (live, why) = match Live::load(&mut ebpf, ITERATOR.0, offsets::hidden_from_live(&offsets)) {
        Ok((live, why)) => (Ok(live), why),
        Err(why) => (Err(why.clone()), Some(why)),
    };
    // Cgroups that are left alone are, until the daemon looks for them again. The kill switch holds until it is
    // switched off, whoever restarts the daemon.
    bypass |= tables.settings().flags & flags::BYPASS != 0;
    let kept = tables.settings().flags & flags::BYPASSED | if bypass { flags::BYPASS } else { 0 };
    // Workers of a daemon that is about to be followed go on until it hands their listeners over.
    let workers = tables.settings().workers;
    tables.put_settings(&Settings { flags: options.settings.flags | kept, workers, ..options.settings });
    let earlier = options.pins.map(|pins| EarlierRuns::open(pins, u32::try_from(PROGRAMS.len()).unwrap_or(u32::MAX)));
    if let Some(Err(why)) = &earlier {
        notes.push(format!("runs of replaced programs are not counted: {why}"));
    }
    let earlier = earlier.and_then(Result::ok);
    let pinned = options.pins.map(Pinned::open).transpose()?;
    let tables = Arc::new(tables);
    let (ebpf, work) = (Mutex::new(ebpf), Mutex::default());
    Ok(Kernel {
        ebpf,
        unpinned,
        tables,
        live,
        iterator: why,
        missing,
        earlier,
        work,
        stats: None,
        pinned,
        notes,
        adopted,
    })
}

/// Whether a daemon with tables of this size would go on with those that are pinned; `None`: there are none.
///
/// # Errors
/// Why it would not, and so start with new ones.
pub fn adoptable(pins: &Pins, capacity: &Capacity) -> Result<Option<()>, String> {
    match pins.check(&shapes(capacity)) {
        Found::Nothing => Ok(None),
        Found::Fit(_) => Ok(Some(())),
        Found::Unfit(why) => Err(why),
    }
}

/// Puts larger tables in the place of those that are too small. Returns the sizes of now.
fn grown(pins: &Pins, shapes: &[Shape], mut sizes: Vec<u32>) -> Result<Vec<u32>, KernelError> {
    for (shape, size) in shapes.iter().zip(&mut sizes) {
        if *size < shape.entries {
            tracing::info!("table {} grows from {size} to {} entries", shape.name, shape.entries);
            grow::grow(pins, shape)?;
            *size = shape.entries;
        }
    }
    Ok(sizes)
}

/// Programs that the kernel refuses, and why.
pub(super) type Missing = Vec<(&'static str, String)>;

fn load_object(
    options: &Options<'_>,
    shapes: &[Shape],
    sizes: &[u32],
    offsets: &[(&'static str, u32)],
) -> Result<(Ebpf, Tables, Missing), KernelError> {
    let mut loader = EbpfLoader::new();
    for (shape, entries) in shapes.iter().zip(sizes) {
        if shape.entries > 0 {
            loader.map_max_entries(shape.name, *entries);
        }
        if let Some(pins) = options.pins {
            loader.map_pin_path(shape.name, pins.map(shape.name));
        }
    }
    for (name, value) in offsets {
        loader.override_global(name, value, true);
    }
    loader.override_global(aya_log::LEVEL, &options.log_level, false);
    // The loader tries what the kernel can do, and takes a refusal for a lack that it then stumbles over.
    let mut ebpf = loader.load(options.object).map_err(|error| match sys::can_load() {
        Ok(()) => KernelError::Object(chain(&error)),
        Err(refused) => KernelError::Forbidden(refused),
    })?;
    let tables = Tables::take(&mut ebpf, options.pins)?;
    let mut missing = Vec::new();
    for spec in &PROGRAMS {
        if let Err(why) = load_program(&mut ebpf, spec.name) {
            missing.push((spec.name, why));
        }
    }
    Ok((ebpf, tables, missing))
}

/// Loads one program; the error is the kernel's verdict in one line.
pub(super) fn load_program(ebpf: &mut Ebpf, name: &str) -> Result<(), String> {
    let program = ebpf.program_mut(name).ok_or("the object does not have it")?;
    let loaded: Result<(), ProgramError> = match program {
        Program::CgroupSockAddr(p) => p.load(),
        Program::CgroupSock(p) => p.load(),
        Program::SockOps(p) => p.load(),
        other => return Err(format!("unexpected kind {:?}", other.prog_type())),
    };
    loaded.map_err(|e| chain(&e))
}
