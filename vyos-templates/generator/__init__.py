"""From XML definitions to what the VyOS command line reads: node.def files and the reference cache."""
