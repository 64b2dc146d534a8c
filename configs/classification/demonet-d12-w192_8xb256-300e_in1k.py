# DemoNet on ImageNet with the authors' command: 8 GPUs x 256 images, AdamW
# 4e-3, EMA of the weights. All other settings are their script's defaults.
# bash tools/dist_train.sh \
#     configs/classification/demonet-d12-w192_8xb256-300e_in1k.py 8
# Published: 71.7 top-1 (Rewrite the Stars, Table 2). Not trained here.
_base_ = '../_base_/recipes/imagenet_starnet.py'
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        _delete_=True,
        type='DemoNet',
        depth=12,
        embed_dims=192,
        out_indices=(11,),
        gap_before_final_norm=True,
    ),
    neck=None,
    head=dict(in_channels=192),
)
optim_wrapper = dict(optimizer=dict(lr=4e-3))
custom_hooks = [dict(type='EMAHook', momentum=2e-4)]
