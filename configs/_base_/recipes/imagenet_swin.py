# Swin's recipe for ImageNet, with its head: AdamW 1e-3 at 1024 images, weight
# decay 0.05, 300 epochs, RandAugment m9, mixup 0.8, cutmix 1.
_base_ = [
    'mmpretrain::_base_/models/swin_transformer/tiny_224.py',
    'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py',
    'mmpretrain::_base_/schedules/imagenet_bs1024_adamw_swin.py',
    'mmpretrain::_base_/default_runtime.py',
]
