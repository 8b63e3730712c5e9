//! An argument list of a guest in SEV-SNP, run to launch by the server's QEMU against the simulator, on the server's own KVM.

use lab::Server;

pub(crate) fn a_simulated_launch_in_the_lab_measures_what_was_predicted(server: &mut Server<'_>) {
    if std::env::var("BULLION_TEST_UNPUBLISHED").is_ok_and(|value| value == "yes") {
        eprintln!("skipped: a simulated launch in the lab: the firmware may not be pinned");
        return;
    }
    let text = "schema = 1\nname = \"sim\"\nimage = \"/opt/image\"\ntee = \"snp\"\nvcpus = 2\nmemory = \"512MiB\"\n[guest]\nhostname = \"sim\"\n";
    let script = format!(
        "cat >/run/lab-sim.toml <<'END'\n{text}END
         /opt/bullion launch --simulate --qemu /usr/bin/qemu-system-x86_64 /run/lab-sim.toml"
    );
    server.run_for(900, &script).expect(0).says(&["SIMULATED", "equals the prediction"]);
    server.run("/opt/bullion rm sim; rm /run/lab-sim.toml").expect(0);
}
