//! Where the local API listens. The address of a Unix socket has room for about a hundred bytes only; a home with a longer
//! path has a link to a socket in a short private directory in its place, so that daemon and CLI agree without guessing.

use std::{
    fs,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _, symlink},
    },
    path::{Path, PathBuf},
};

use super::Home;
use crate::durable::{self, FileError, at};

/// Bytes of the path of a Unix socket: 108 on Linux and 104 on the BSDs and macOS, with the final NUL.
const SOCKET_PATH_BYTES_MAX: usize = 103;

/// Why there is no place for the socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("the directory `{}` for the socket belongs to another user or can be entered by others", .0.display())]
    NotPrivate(PathBuf),
    #[error("`{}` is in the way of the socket and is not one", .0.display())]
    InTheWay(PathBuf),
    #[error("there is no directory with a path short enough for the socket `{}`", .0.display())]
    TooLong(PathBuf),
}

impl Home {
    /// The name of the socket in the home: the socket itself, or a link to it.
    #[must_use]
    pub fn socket_name(&self) -> PathBuf {
        self.root().join("api.sock")
    }

    /// Where the CLI finds the daemon.
    #[must_use]
    pub fn socket_for_client(&self) -> PathBuf {
        let name = self.socket_name();
        fs::read_link(&name).unwrap_or(name)
    }

    /// Makes the place where the daemon binds its socket, and removes what an earlier daemon left there. Only for the one
    /// that holds the lock of the home.
    ///
    /// # Errors
    /// There is no private directory with a short path, or something else has the name.
    pub fn socket_for_daemon(&self) -> Result<PathBuf, SocketError> {
        let name = self.socket_name();
        remove_stale(&name)?;
        if name.as_os_str().as_bytes().len() <= SOCKET_PATH_BYTES_MAX {
            return Ok(name);
        }
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let short = short_path(self.root(), runtime.as_deref())?;
        remove_stale(&short)?;
        symlink(&short, &name).map_err(at("link", &name))?;
        Ok(short)
    }
}

/// A path in the user's runtime directory, or else in the machine's temporary directory, that only this home has.
fn short_path(root: &Path, runtime: Option<&Path>) -> Result<PathBuf, SocketError> {
    let uid = durable::own_uid().map_err(at("use", root))?;
    let hash = blake3::hash(root.as_os_str().as_bytes()).to_hex();
    let name = format!("{}.sock", hash.get(..16).unwrap_or_default());
    let folders = [
        runtime.filter(|path| path.is_dir()).map(|path| path.join("alliance")),
        Some(format!("/tmp/alliance-{uid}").into()),
    ];
    for folder in folders.into_iter().flatten() {
        let path = folder.join(&name);
        if path.as_os_str().as_bytes().len() > SOCKET_PATH_BYTES_MAX {
            continue;
        }
        durable::private_dir(&folder)?;
        // Not followed: in a directory that all may write to, a link may be someone else's.
        let metadata = fs::symlink_metadata(&folder).map_err(at("open", &folder))?;
        if !metadata.is_dir() || metadata.uid() != uid || durable::open_to_others(&metadata) != 0 {
            return Err(SocketError::NotPrivate(folder));
        }
        return Ok(path);
    }
    Err(SocketError::TooLong(root.to_owned()))
}

fn remove_stale(path: &Path) -> Result<(), SocketError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() || metadata.file_type().is_symlink() => {
            Ok(fs::remove_file(path).map_err(at("remove", path))?)
        }
        Ok(_) => Err(SocketError::InTheWay(path.to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(at("open", path)(error).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_home_gets_a_short_socket() {
        let dir = tempfile::tempdir().expect("a directory");
        let short = Home::at(dir.path()).expect("a path");
        assert_eq!(short.socket_for_daemon().expect("a place"), short.socket_name());
        assert_eq!(short.socket_for_client(), short.socket_name());

        let deep = dir.path().join("d".repeat(60)).join("e".repeat(60));
        durable::private_dir(&deep).expect("made");
        let long = Home::at(&deep).expect("a path");
        for _ in 0..2 {
            let place = long.socket_for_daemon().expect("a place");
            assert!(place.as_os_str().len() <= SOCKET_PATH_BYTES_MAX, "{}", place.display());
            assert_eq!(long.socket_for_client(), place);
        }
    }

    #[test]
    fn nothing_but_a_socket_is_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let home = Home::at(dir.path()).expect("a path");
        fs::write(home.socket_name(), "precious").expect("written");
        assert!(matches!(home.socket_for_daemon(), Err(SocketError::InTheWay(_))));
        assert_eq!(fs::read_to_string(home.socket_name()).expect("still there"), "precious");
    }

    #[test]
    fn a_directory_open_to_others_is_not_used() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a directory");
        let folder = dir.path().join("alliance");
        fs::create_dir(&folder).expect("made");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("changed");
        let found = short_path(Path::new("/somewhere"), Some(dir.path()));
        assert!(matches!(found, Err(SocketError::NotPrivate(path)) if path == folder));
    }
}
