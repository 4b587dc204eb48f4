//! Where a walk is, for messages: shared by all that lies below.

use std::sync::Arc;

/// A directory on the way down from an image's root.
pub struct Path {
    /// `None` at the root of an image.
    parent: Option<Arc<Path>>,
    name: Box<[u8]>,
}

impl Path {
    /// The root of an image, which is named by this text.
    pub fn root(image: &str) -> Arc<Self> {
        Arc::new(Path { parent: None, name: image.as_bytes().into() })
    }

    pub fn join(self: &Arc<Self>, name: &[u8]) -> Arc<Self> {
        Arc::new(Path { parent: Some(Arc::clone(self)), name: name.into() })
    }

    /// "IMAGE:/a/b".
    pub fn bytes(&self) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = self;
        while let Some(parent) = &at.parent {
            names.push(&at.name);
            at = parent;
        }
        let mut bytes = [&at.name, &b":/"[..]].concat();
        bytes.extend_from_slice(
            &names.into_iter().rev().map(|name| &name[..]).collect::<Vec<_>>().join(&b'/'),
        );
        bytes
    }
}

impl Drop for Path {
    /// One after the other: a tree may be deeper than the stack.
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(path) = next {
            next = Arc::try_unwrap(path).ok().and_then(|mut path| path.parent.take());
        }
    }
}
