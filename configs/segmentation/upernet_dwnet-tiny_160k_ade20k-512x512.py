# UperNet on ADE20K, the DWNet authors' recipe: 8 GPUs x 2 images.
# bash tools/dist_train.sh \
#     configs/segmentation/upernet_dwnet-tiny_160k_ade20k-512x512.py 8
# Published: 45.5 mIoU (Atten4Vis/DemystifyLocalViT README). Not trained here.
_base_ = [
    'mmseg::_base_/models/upernet_swin.py',
    'mmseg::_base_/datasets/ade20k.py',
    'mmseg::_base_/default_runtime.py',
    '../_base_/schedules/upernet_adamw_160k.py',
    '../_base_/backbones/dwnet.py',
]
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(_base_.pop('dwnet').tiny.backbone, drop_path_rate=0.3),
    decode_head=dict(in_channels=[96, 192, 384, 768], num_classes=150),
    auxiliary_head=dict(in_channels=384, num_classes=150),
)
train_dataloader = dict(batch_size=2)
