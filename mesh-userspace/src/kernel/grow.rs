//! Pinned tables that became too small: larger ones take their place, under the programs at work.
//!
//! Rows are copied one to one; nobody writes them meanwhile, since whoever starts holds the lock. Programs go on with
//! the old tables until they are replaced. Counters are not copied: the old table is kept beside the new one and both
//! are added up ([`super::summed`]). Each step is one rename, and any prefix of them is a state to start from.

use super::{KernelError, Pins, mapped::Mapped, pins::Shape, sys};
use aya::maps::MapData;
use mesh_common::names;
use std::{
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

/// Tables of counters: never copied.
const COUNTERS: [&str; 4] = [names::SERVICE_COUNTS, names::PICKS, names::ENDPOINT_COUNTS, names::ENDPOINT_TIMES];

/// Puts a table of `wanted` entries in the place of a pinned one that holds fewer.
pub(super) fn grow(pins: &Pins, wanted: &Shape) -> Result<(), KernelError> {
    let (old, new) = (pins.map(wanted.name), fresh(pins, wanted.name));
    remove(&new)?;
    let failed = |e: io::Error| KernelError::io(format!("growing the table {}", wanted.name), e);
    let map = sys::map_create(wanted.kind, wanted.key, wanted.value, wanted.entries, wanted.flags, wanted.name)
        .map_err(failed)?;
    sys::obj_pin(map.as_fd(), &new).map_err(failed)?;
    if COUNTERS.contains(&wanted.name) {
        rename(&old, &set_aside(pins, wanted.name))?;
    } else {
        copy(wanted, &old, &new)?;
    }
    rename(&new, &old)
}

/// Ends what a daemon that died while growing left half done.
pub(super) fn recover(pins: &Pins) -> Result<(), KernelError> {
    for name in names::MAPS {
        let (new, place) = (fresh(pins, name), pins.map(name));
        if !new.exists() {
            continue;
        }
        if COUNTERS.contains(&name) && !place.exists() {
            rename(&new, &place)?;
        } else {
            remove(&new)?;
        }
    }
    Ok(())
}

/// The smaller tables of counters that were set aside.
pub(super) fn earlier(pins: &Pins, name: &str) -> Result<Vec<MapData>, KernelError> {
    let paths = (0..).map(|n| aside(pins, name, n)).take_while(|path| path.exists());
    paths.map(|path| open(name, &path)).collect()
}

/// Those, and the table of now.
pub(super) fn all(pins: &Pins, name: &str) -> Result<Vec<MapData>, KernelError> {
    let mut all = earlier(pins, name)?;
    all.push(open(name, &pins.map(name))?);
    Ok(all)
}

/// Whether the table with this id is one of counters that was set aside.
pub(super) fn is_set_aside(pins: &Pins, name: &str, id: u32) -> Result<bool, KernelError> {
    Ok(earlier(pins, name)?.iter().any(|map| map.info().is_ok_and(|info| info.id() == id)))
}

fn open(name: &str, path: &Path) -> Result<MapData, KernelError> {
    MapData::from_pin(path).map_err(|e| KernelError::Map { map: name.to_owned(), why: super::error::chain(&e) })
}

/// Forgets that the table of counters with this map id was set aside: it is the one of now again.
pub(super) fn take_back(pins: &Pins, name: &str, map: u32) -> Result<(), KernelError> {
    let is_it =
        |path: &PathBuf| sys::obj_get(path).and_then(|found| sys::map_id(found.as_fd())).is_ok_and(|id| id == map);
    match (0..).map(|n| aside(pins, name, n)).take_while(|path| path.exists()).find(is_it) {
        Some(path) => remove(&path),
        None => Ok(()),
    }
}

/// Where the larger table waits. (bpffs takes no dots in names.)
fn fresh(pins: &Pins, name: &str) -> PathBuf {
    pins.map(&format!("{name}_new"))
}

fn aside(pins: &Pins, name: &str, number: u32) -> PathBuf {
    pins.map(&format!("{name}_{number}"))
}

fn set_aside(pins: &Pins, name: &str) -> PathBuf {
    (0..).map(|n| aside(pins, name, n)).find(|path| !path.exists()).unwrap_or_else(|| aside(pins, name, u32::MAX))
}

fn copy(shape: &Shape, old: &Path, new: &Path) -> Result<(), KernelError> {
    let (old, new) = (open(shape.name, old)?, open(shape.name, new)?);
    match shape.name {
        names::VIPS => copy_hash(shape, old, new),
        names::SERVICES => copy_rows::<mesh_common::service::ServiceRow>(shape, old, new),
        names::SLOTS => copy_rows::<mesh_common::endpoint::Slot>(shape, old, new),
        names::ENDPOINTS => copy_rows::<mesh_common::endpoint::EndpointRow>(shape, old, new),
        // What programs change meanwhile in the old table is forgotten: a turn, a failure in a row.
        names::SERVICE_STATES => copy_rows::<mesh_common::service::ServiceState>(shape, old, new),
        names::ENDPOINT_STATES => copy_rows::<mesh_common::endpoint::EndpointState>(shape, old, new),
        _ => Err(KernelError::Map { map: shape.name.to_owned(), why: "it never grows".to_owned() }),
    }
}

fn copy_rows<T: bytemuck::Pod>(shape: &Shape, old: MapData, new: MapData) -> Result<(), KernelError> {
    let (old, new) = (Mapped::<T>::new(shape.name, old)?, Mapped::<T>::new(shape.name, new)?);
    for row in 0..old.rows() {
        if let Some(value) = old.read(row) {
            new.write(row, &value, 0..size_of::<T>() / size_of::<u64>());
        }
    }
    Ok(())
}

fn copy_hash(shape: &Shape, old: MapData, new: MapData) -> Result<(), KernelError> {
    use super::wire::Wire;
    use aya::maps::{HashMap, Map, MapError};
    use mesh_common::service::{VipKey, VipRow};
    type Vips = HashMap<MapData, Wire<VipKey>, Wire<VipRow>>;
    let refuse = |e: MapError| KernelError::Map { map: shape.name.to_owned(), why: super::error::chain(&e) };
    let old = Vips::try_from(Map::HashMap(old)).map_err(refuse)?;
    let mut new = Vips::try_from(Map::HashMap(new)).map_err(refuse)?;
    for entry in old.iter() {
        let (key, row) = entry.map_err(refuse)?;
        new.insert(key, row, 0).map_err(refuse)?;
    }
    Ok(())
}

fn rename(from: &Path, to: &Path) -> Result<(), KernelError> {
    fs::rename(from, to).map_err(|e| KernelError::io(format!("renaming {} to {}", from.display(), to.display()), e))
}

fn remove(path: &Path) -> Result<(), KernelError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(KernelError::io(format!("removing {}", path.display()), e))
        }
        _ => Ok(()),
    }
}
