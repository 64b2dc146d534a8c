# Faster R-CNN for small images and two CPU cores, with ResNet-18 from random
# weights. At mmdet's width, the neck and the RPN would cost three times as
# much as the ResNet-18.
_base_ = 'mmdet::_base_/models/faster-rcnn_r50_fpn.py'
model = dict(
    backbone=dict(
        depth=18,
        frozen_stages=-1,
        norm_eval=False,
        # A short training from random weights: no branch starts at zero.
        # The gain was not measured.
        zero_init_residual=False,
        init_cfg=None,
    ),
    neck=dict(
        in_channels=[64, 128, 256, 512],
        out_channels=64,
        num_outs=4,
        norm_cfg=dict(type='BN'),
    ),
    rpn_head=dict(
        in_channels=64,
        feat_channels=64,
        # Objects are 15 to 170 pixels wide.
        anchor_generator=dict(scales=[4], strides=[4, 8, 16, 32]),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64),
        bbox_head=dict(
            in_channels=64,
            fc_out_channels=256,
            # One regressor for all classes: with few images, regression is
            # the slowest part to learn.
            reg_class_agnostic=True,
        ),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=300, max_per_img=100),
        rcnn=dict(sampler=dict(num=64, pos_fraction=0.5)),
    ),
    test_cfg=dict(
        rpn=dict(nms_pre=300, max_per_img=100),
        # Every box is kept, so that the AP is above zero after one epoch.
        rcnn=dict(score_thr=0.0),
    ),
)
