//! A guest with two NUMA nodes on a server that has two: each of the guest's is memory of one of the server's, and runs on its
//! processors. The guest's kernel says what it has, the server's where it is.

use lab::Server;

use crate::guest;

pub(crate) fn a_guest_of_two_nodes_has_memory_and_processors_of_both(server: &mut Server<'_>) {
    // One that the server does not have is named.
    describe(server, [0, 2], "");
    guest::launch_to_the_end(server, "nodes")
        .expect(3)
        .says(&["there is no NUMA node 2", "this host has the nodes 0, 1"]);
    // The guest's nodes are the server's in the order in which they are named.
    describe(server, [1, 0], "");
    guest::launch(server, "nodes");
    guest::wait_for(server, "nodes", "the guest is ready");
    // Its kernel has found memory in both, and a processor.
    let console = server.run("/opt/bullion logs nodes").expect(0);
    console.says(&["smp: Brought up 2 nodes, 2 CPUs", "Initmem setup node 0 [mem ", "Initmem setup node 1 [mem "]);
    let listed = server.run("/opt/bullion --json ps").expect(0).json();
    let qemu = listed["vms"][0]["qemu_pid"].as_u64().unwrap_or_else(|| panic!("{listed}"));
    processors_are_near(server, qemu, [1, 0]);
    memory_is_near(server, qemu);
    guest::stop(server, "nodes");
    huge_pages_are_prepared_on_each(server);
}

fn describe(server: &mut Server<'_>, nodes: [u32; 2], more: &str) {
    let text = format!(
        "schema = 1\nname = \"nodes\"\nimage = \"/opt/image\"\ntee = \"none\"\nvcpus = 2\nmemory = \"256MiB\"\n\
         [host]\naccelerator = \"kvm\"\nready_timeout_s = 600\nnuma_nodes = {nodes:?}\n{more}"
    );
    server.run(&format!("cat >/run/lab-nodes.toml <<'END'\n{text}END")).expect(0);
}

/// Two threads are the vCPUs, each kept to the processors of its node; QEMU's others may run anywhere.
fn processors_are_near(server: &mut Server<'_>, qemu: u64, nodes: [u32; 2]) {
    let lists = format!("cd /sys/devices/system/node; cat node{}/cpulist node{}/cpulist", nodes[0], nodes[1]);
    let lists = server.run(&lists).expect(0).stdout;
    let [first, second] = lists.lines().collect::<Vec<_>>()[..] else { panic!("{lists}") };
    assert_ne!(first, second, "the server's nodes have a processor each");
    let threads = format!(
        "cd /proc/{qemu}/task; for thread in *; do
           echo $(sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' $thread/status) $(cat $thread/comm)
         done | sort -k 3"
    );
    let threads = server.run(&threads).expect(0).stdout;
    let vcpus: Vec<&str> = threads.lines().filter(|line| line.ends_with("/KVM")).collect();
    assert_eq!(vcpus, [format!("{first} CPU 0/KVM"), format!("{second} CPU 1/KVM")], "{threads}");
    assert!(threads.lines().any(|line| line.starts_with("0-1 ")), "{threads}");
}

/// Pages that the guest has used are of the node to which they are bound, and of no other; both nodes have some.
fn memory_is_near(server: &mut Server<'_>, qemu: u64) {
    let memory = server.run(&format!("grep /memfd:memory-backend /proc/{qemu}/numa_maps")).expect(0).stdout;
    for (node, other) in [(0, 1), (1, 0)] {
        let lines: Vec<&str> = memory.lines().filter(|line| line.contains(&format!(" bind:{node} "))).collect();
        let used: u64 = lines.iter().map(|line| pages(line, node)).sum();
        assert!(used > 0 && lines.iter().all(|line| pages(line, other) == 0), "node {node}: {memory}");
    }
    assert!(memory.lines().all(|line| line.contains(" bind:")), "{memory}");
}

/// How many pages of a node the line of a mapping counts (proc_pid_numa_maps(5)).
fn pages(line: &str, node: u32) -> u64 {
    let prefix = format!("N{node}=");
    line.split_whitespace().find_map(|word| word.strip_prefix(&prefix)?.parse().ok()).unwrap_or(0)
}

/// The 64 that the guest would take there, and none afterwards.
fn huge_pages_are_prepared_on_each(server: &mut Server<'_>) {
    describe(server, [0, 1], "huge_pages = \"2MiB\"\n");
    server.run("/opt/bullion host prepare --for /run/lab-nodes.toml --yes").expect(0);
    let pages = "cat /sys/devices/system/node/node[01]/hugepages/hugepages-2048kB/nr_hugepages";
    assert_eq!(server.run(pages).expect(0).stdout, "64\n64\n");
    server.run("/opt/bullion host restore && rm /run/lab-nodes.toml").expect(0);
    assert_eq!(server.run(pages).expect(0).stdout, "0\n0\n");
}
