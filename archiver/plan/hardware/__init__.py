"""What models run on: profiles of GPUs and of this machine's CPU, with what is known of how far their peaks are reached."""
