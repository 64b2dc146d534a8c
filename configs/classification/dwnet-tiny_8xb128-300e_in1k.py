# DWNet-T on ImageNet with the authors' recipe, which is Swin's.
# bash tools/dist_train.sh \
#     configs/classification/dwnet-tiny_8xb128-300e_in1k.py 8
# Published: 81.2 top-1 (Atten4Vis/DemystifyLocalViT README). Not trained here.
_base_ = '../_base_/recipes/imagenet_swin.py'
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
