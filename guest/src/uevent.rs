//! What the kernel says of a partition in `/sys/class/block/NAME/uevent`: lines of `KEY=VALUE`.
//!
//! The label in it (`PARTNAME`) is the host's; the kernel lets no control character of it through, and nothing here reads it.

/// The UUID of the partition that `text` tells of, in lower case; `None` where it tells of a whole disk, of a partition without
/// one, or of two at once.
pub(crate) fn partition_uuid(text: &str) -> Option<&str> {
    let value = |key: &str| {
        let mut values = text.lines().filter_map(|line| line.split_once('=')).filter(|(found, _)| *found == key);
        values.next().map(|(_, value)| value).filter(|_| values.next().is_none())
    };
    value("DEVTYPE").filter(|kind| *kind == "partition").and_then(|_| value("PARTUUID"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTITION: &str = "MAJOR=254\nMINOR=2\nDEVNAME=vda2\nDEVTYPE=partition\nDISKSEQ=1\nPARTN=2\nPARTNAME=root\n\
        PARTUUID=421c2ad6-63ac-cf91-ff1d-f21c3f5bd4b6\n";

    #[test]
    fn only_a_partition_has_a_partition_uuid() {
        assert_eq!(partition_uuid(PARTITION), Some("421c2ad6-63ac-cf91-ff1d-f21c3f5bd4b6"));
        assert_eq!(partition_uuid(&PARTITION.replace("partition", "disk")), None);
        assert_eq!(partition_uuid("MAJOR=254\nDEVTYPE=partition\n"), None);
        assert_eq!(
            partition_uuid(&PARTITION.replace("PARTNAME=root", "PARTNAME=PARTUUID=0")),
            partition_uuid(PARTITION)
        );
        assert_eq!(partition_uuid(&format!("{PARTITION}PARTUUID=0\n")), None);
        assert_eq!(partition_uuid(""), None);
    }
}
