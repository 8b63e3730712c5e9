//! File content as a slice of a decoded package, so that merging trees copies no bytes.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Immutable bytes; cloning shares them.
#[derive(Clone)]
pub struct Content {
    data: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl Content {
    /// The part `range` of `data`; `None` where it reaches beyond the end.
    pub fn slice(data: &Arc<Vec<u8>>, range: Range<usize>) -> Option<Self> {
        data.get(range.clone())?;
        Some(Self { data: Arc::clone(data), range })
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        self.data.get(self.range.clone()).unwrap_or_default()
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self { data: Arc::new(bytes), range }
    }
}

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        (Arc::ptr_eq(&self.data, &other.data) && self.range == other.range) || self.bytes() == other.bytes()
    }
}

impl Eq for Content {}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}
