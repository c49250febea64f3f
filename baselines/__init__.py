"""What LFGCL is compared with, one file each, through the package's public interface only."""
