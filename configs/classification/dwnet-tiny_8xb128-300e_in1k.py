# DWNet-T on ImageNet, the authors' recipe: AdamW 1e-3 at 1024 images, weight
# decay .05, 300 epochs, RandAugment m9, mixup .8, cutmix 1, which is Swin's.
# bash tools/dist_train.sh \
#     configs/classification/dwnet-tiny_8xb128-300e_in1k.py 8
# Published: 81.2 top-1 (Atten4Vis/DemystifyLocalViT README). Not trained here.
_base_ = [
    'mmpretrain::_base_/models/swin_transformer/tiny_224.py',
    'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py',
    'mmpretrain::_base_/schedules/imagenet_bs1024_adamw_swin.py',
    'mmpretrain::_base_/default_runtime.py',
]
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        _delete_=True,
        type='DWNet',
        arch='tiny',
        out_indices=(3,),
        drop_path_rate=0.2,
        pad_to_window=False,
        final_norm=True,
    ),
)
optim_wrapper = dict(clip_grad=dict(max_norm=5.0))
train_dataloader = dict(batch_size=128)
