# gMLP-S on ImageNet with Swin's recipe, since the paper's table of settings
# was not available: 4096 images per step, 1e-3, survival probability 0.95.
# bash tools/dist_train.sh \
#     configs/classification/gmlp-small_32xb128-300e_in1k.py 32
# Published: 79.6 top-1 (gMLP paper). Not trained here.
_base_ = '../_base_/recipes/imagenet_swin.py'
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
# Pixels in [-1, 1], as for timm's weights and the detectors in configs/gmlp,
# so that weights can be exchanged.
data_preprocessor = dict(mean=[127.5] * 3, std=[127.5] * 3)
model = dict(
    backbone=dict(
        _delete_=True,
        type='GMLP',
        arch='small',
        out_indices=(29,),
        drop_path_rate=0.05,
    ),
    head=dict(in_channels=256),
)
optim_wrapper = dict(clip_grad=dict(max_norm=1.0))
train_dataloader = dict(batch_size=128)
auto_scale_lr = dict(base_batch_size=4096)
