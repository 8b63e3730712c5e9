//! Argument lists of guests in a TEE with all that a description may give them, run to launch by the locked QEMU against the
//! simulator, on the server's own KVM: what is measured then is what the plan said.

use lab::Server;
use serde_json::Value;

use crate::guest;

const VOLUME: &str = "/run/lab-sim.volume";

pub(crate) fn simulated_launches_in_the_lab_measure_what_was_planned(server: &mut Server<'_>) {
    if std::env::var("BULLION_TEST_UNPUBLISHED").is_ok_and(|value| value == "yes") {
        eprintln!("skipped: simulated launches in the lab: the firmware may not be pinned");
        return;
    }
    // Functions are passed to a TEE by iommufd only.
    let passed = guest::has_iommufd(server).then(|| guest::addresses(server, "1234:11e8").remove(0));
    server.run(&format!("truncate -s 16M {VOLUME}")).expect(0);
    if let Some(function) = &passed {
        guest::bind(server, function);
    }
    for (tee, register) in [("snp", "launch_digest"), ("tdx", "mrtd")] {
        describe(server, tee, passed.as_deref());
        let simulate = "/opt/bullion --json launch --simulate";
        let plan = server.run_for(900, &format!("{simulate} --plan /run/lab-{tee}.toml")).expect(0).json();
        let planned = &plan["expected"][register];
        assert!(planned.as_str().is_some_and(|digest| digest.len() == 96), "{plan:#}");
        let told = server.run_for(900, &format!("{simulate} /run/lab-{tee}.toml")).expect(0).says(&["SIMULATED"]);
        let launched = told.json();
        assert_eq!(&launched["measured"][register], planned, "{launched:#}");
        let arguments = plan["argv"].as_array().unwrap().iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ");
        for word in
            ["virtio-net-pci", "virtio-blk-pci", "vhost-vsock-pci"].iter().chain(passed.as_ref().map(|_| &"vfio-pci"))
        {
            assert!(arguments.contains(word), "{word}: {arguments}");
        }
        server.run(&format!("/opt/bullion rm sim-{tee}; rm /run/lab-{tee}.toml")).expect(0);
    }
    if let Some(function) = &passed {
        guest::give_back(server, function);
    }
    server.run(&format!("rm {VOLUME}")).expect(0);
}

/// A guest with a NIC, a vsock, a volume and, where it can have one, a passed function.
fn describe(server: &mut Server<'_>, tee: &str, passed: Option<&str>) {
    let text = format!(
        "schema = 1\nname = \"sim-{tee}\"\nimage = \"/opt/image\"\ntee = \"{tee}\"\nvcpus = 2\nmemory = \"512MiB\"\n\
         [guest]\nhostname = \"sim\"\n[[guest.volume]]\nname = \"tmp\"\nuse = \"scratch\"\nmount = \"/var/lib/containers\"\n\
         [host]\nvsock = {{ cid = 78 }}\n[[host.volume]]\nname = \"tmp\"\npath = \"{VOLUME}\"\n[[host.nic]]\n{}",
        passed.map(|function| guest::pci(&[function])).unwrap_or_default()
    );
    server.run(&format!("modprobe vhost_vsock; cat >/run/lab-{tee}.toml <<'END'\n{text}END")).expect(0);
}
