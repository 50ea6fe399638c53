//! The file itself: read whole, bounded, and text or refused.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::{Error, MAX_FILE_BYTES};

/// Reads a file whole as text, but no more of it than a configuration may have.
pub(crate) fn read(path: &Path) -> Result<String, Error> {
    text_of(path, read_bytes(path)?)
}

/// The text in what was read of a file.
pub(crate) fn text_of(path: &Path, bytes: Vec<u8>) -> Result<String, Error> {
    text(bytes).map_err(|(line, what)| Error::NotText {
        path: path.to_owned(),
        line,
        what,
    })
}

/// Reads a file whole, but no more of it than a configuration may have.
pub(crate) fn read_bytes(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |cause| Error::Read {
        path: path.to_owned(),
        cause,
    };
    let too_large = || Error::TooLarge {
        path: path.to_owned(),
    };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(Error::Directory {
            path: path.to_owned(),
        });
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(too_large());
    }
    // The length of a pipe or a device is not known before it was read.
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(too_large());
    }
    Ok(bytes)
}

/// The text in a file's bytes, or the line on which it is none, and why.
fn text(bytes: Vec<u8>) -> Result<String, (usize, &'static str)> {
    let line_of = |offset| 1 + bytes[..offset].iter().filter(|&&b| b == b'\n').count();
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err((1, "this is UTF-16"));
    }
    if let Some(offset) = bytes.iter().position(|&b| b == 0) {
        return Err((line_of(offset), "there is a zero byte, as in binary data"));
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(text.strip_prefix('\u{feff}').unwrap_or(text).to_owned()),
        Err(error) => Err((
            line_of(error.valid_up_to()),
            "there is a byte that is not UTF-8",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_told_apart() {
        assert_eq!(text(b"a: 1\n".to_vec()), Ok("a: 1\n".to_owned()));
        assert_eq!(text(b"\xef\xbb\xbfa".to_vec()), Ok("a".to_owned()));
        assert_eq!(
            text(b"\xff\xfea\0".to_vec()).unwrap_err(),
            (1, "this is UTF-16")
        );
        assert_eq!(text(b"a\nb\0".to_vec()).unwrap_err().0, 2);
        assert_eq!(text(b"a\nb\n\xffc".to_vec()).unwrap_err().0, 3);
    }
}
