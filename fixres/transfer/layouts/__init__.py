"""Reads images with boxes or masks in the layouts of Pascal VOC, COCO, ADE20K, and folders."""
