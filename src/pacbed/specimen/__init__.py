"""What is illuminated, and how: crystal, deformation, microscope. No files, no random numbers."""
