# gMLP-S on ImageNet with Swin's recipe; the paper's own table of settings was
# not at hand. 4096 images a step, 1e-3, survival probability .95.
# bash tools/dist_train.sh \
#     configs/classification/gmlp-small_32xb128-300e_in1k.py 32
# Published: 79.6 top-1 (gMLP paper). Not trained here.
_base_ = [
    'mmpretrain::_base_/models/swin_transformer/tiny_224.py',
    'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py',
    'mmpretrain::_base_/schedules/imagenet_bs1024_adamw_swin.py',
    'mmpretrain::_base_/default_runtime.py',
]
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
# Pixels from -1 to 1, as timm's weights and the detectors of configs/gmlp have
# them: either's weights can start the other.
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
