"""Parquet files as pyarrow 26.0.1 writes them, which the tests do not install: zlib and base 85 around their bytes."""

from __future__ import annotations

import zlib
from base64 import b85decode
from typing import Final

_FILES: Final = {
    "no_rows_default": (
        "c-n1IO-sW-5S@llJme(ol7%3-"
        "Bp|fa2$mxCFdI@7Tdl!T^cHG}1>45dn&0LB@<%wkYimK@VLsoy8JIDq5wjUEYe)tT0pL$6`sd&_*Rz*=kujSJf#q8BXJ8Hm_A*=K"
        "0SrB&auA+qh2YUl08OD-"
        "%;La3eiTA@aO@dvqAHSONLpc!7Vgn_kJB9Qld$Vxn%+$>%pLAm<3yobAmJVjZV+pf1r87kjCBj8L>#FgM!eRAUymk~$u7TrAkiKL"
        "$-oqAWfR;%t&*F^Y4p0y<xii?MD3;hSL%*!(;$ie*VFsUCv)FO&)4QYjfu9G;QD1&y>0UM_N*-"
        "1SyioS|0A!~^VQNn>vm2%k!aBi)E7P*0AqUVH!vh*#s"
    ),
    "no_rows_plain": (
        "c-n1I!D_-"
        "l5FI6W%5`NIa>zwbYK@>sX%Dj@QfaL=RHVHH4XIEyjkWoj{$W3&GrQFy_!eg0&fA$c?9MO_grjcyAZz>OTe?Yv1Hx%kWp%v*;SzD"
        "S$tG>Ug9iY0P@ZZv!J`^cQ+!EKl2;SPE&xlekxbdSXjvVoiF7fJr;BUrDSs+gj6sHkC$zXnEKz4TLd-BU5^9Y&VG<&aP2zt?OLcT"
        "QKR#2_A(3cglO@LpPhcy3cv%GR$Fu&^Da_fI{O@><qi7L@m-`w2{MF7kG4-"
        "XL&tPuiEl594ijPD3*<R*(J1L4?>3^lge!biJy+Nnj2~>-on_v990x+Xb`URe^VIT"
    ),
    "empty_between": (
        "c-"
        "qxe!A=xG5UuVRCxh9;LhMdYGBI;tI}jIiN!SoG9%?pAFfNK43DMgCo0UXhS%kfC<OBQwj(&^>j~+a5@B=*f1;*;`Z6vZW;bLMPs;"
        "j%I-"
        "g{l?^agetA{3dJ?a%@<0M(p<Gd^Agh#4X4l&^|NM5&5>M#a8X!rX+@>1lFPnMs6<1)L!63FVpY&YHT?xa~hVnlQ(<6)PtofZ!c+1"
        "_5qv|D&5E`7)^Jc;{_zzZ4;fuW`lqc0p7q2oK8rUJW{_krXF+QrD1D&oV^S#FPmxL;0D>FHEoL_;y!G>TYmmAXQrO`6$s4QqquA#"
        "w1pPr8$%5On>0|l3l;f4HOwB9!GwnJ{`-i9K7-"
        "xL|!<^RNmL1zw!BWjNz$mm1p*KKd;xx6=^zU4u6};WuPyDe=wDgcl3|&c2l_s>{wD&!EX1()?@bq)OYsKShJ60FVWdE#1R&KTt)0"
        "-%cig>5Z6u6LVRiuey`}lqJ6c0{)#|XC}^*`!;$fAyfQ;ooV?y@yz~2FoF}(wc!___=<rEr?bc*G%RhMI^sU?ek<({w)A}c%vOzg"
        "KI_bS%*cl8K%Hi;El%4j5$9snd*-~@y(PAU1)8jYq|3Lt-K_AsG_$Zwn"
    ),
    "empty_first": (
        "c-"
        "oay%}(1u5T4yyR;Y4FP<OSKtjdRE1(KmnC87w0!#E_OBB3+_A$l_qrICPy@RLiAeTY612aX(g2p)o2Z#Inx7v?ZKKi_=ccx~@vw<"
        "0_Ng15=RG5{>5ktnrImC{0;fi*ro3AZd{O#OoJg&(S%>!_T=N?3WLS}c-"
        "VicG^}>;or?PeM7Rk0pakjXQa*QH2$DqFB1f5Y#t7`PZkvdl#wjX!$Z%d~gOLPl0!tUi8Y)4$Vql5C^e_kY>u@2L>g$1R2WD8gy<"
        "owD&+z1Ik-a#xMudb1+$xG$-"
        "reXg9zwI9^XaF!{*zU#7R;cSS)wRUlWOqrU0~8ob$FR>dvm$v=`b9=QI;=dWpjg`VH>$a|X8+wzG+5UM<OyFZRL?G>tL_QhDWk7P"
        "g5+AiV*lRmZ(``E}@m?VfD6EqONXNCVK+AwL(^1TBhtx?cy+2X|bCeF-ACAY^%m2;OT(>}RFqf7cbW)Ii2)@;1Zm+6mw+5I}%{KW"
        "2;*<t3lKt-c;e0AHqSvwt#*3$8KIEn6h<LkljGWu3s|GHiYV)}Z_2XszvYoGp}7r7^YT>"
    ),
    "only_empty_groups": (
        "c-oaxO-sW-5FJA(J>(?pl0cAL5)jgA1WS>6n4~F+t=3>EdW$v0f^E~(nm_H2aCX<$A|m<@v-"
        "9!h&15%2Oai7eU|OFH>;u3*L#uNNW^FZj&SojoDdB3SHhltSkfYDjS>{6DCMpNZw|oz5>T#iF2^P~haGM`^;MEUprA<^pG89QF?9"
        "jX&8gFyz;~n@#w);2P$M3RTA#0lkCdtkCOnsjDzIP<h%8_u33Rj2~hB@{SbBtsO!w_*GoCxt!CcaKoZWwRl>pK!{lN0w;vJy7NEy"
        "SpBeLoIfHgWh_Co>XrY5s-SV^dU!qo4KU{Nh3FH<106+D~F6?KzlEk(SGK_S%>fMI$ZCMdiF@<!ZW^J14E?aWk-"
        "ddRg(fb-K7A{YxK!&2GT"
    ),
    "twice": (
        "c-"
        "nnZPfG$(5TCa_77Gs=zU4jGgNIxU>@Q>zdYHA9A}f=kvx#g)rD>%?$38@djvYGmq52pdd$a4RBsj41|NZ7S%+|2JCAdh4R8<>T28"
        "h`V01W*J5X-{K1!Ys1w&awRoaz>2r=nz1tHm@WIAaTjev%S0LR?y*o&l-hf6P2&*-"
        ")~<EP^WTfHZr}>(+fka1chuki6NxLlE)E%|O*AGF;gz=YTB?wF72Cg;il#-1=bFCvyr;Y(9NOl=Ki<I-"
        "yN*)l?2}T_o7}4D74*#+)DKe6#5lW>7S<2*-NY@0^(RWq`6}9P9Pd%e`<t`O7v)c9G-"
        "^Lpeh1qw8Y@(Z{kM<Xji=n4B`=VUU<u3|-e7$0z3+w4fcY5+?hkJsb;-"
        "a&ND;2W}L*qq<fXG*{0*ARbXM6tC=!NX*CcaX%o{9JL1R{-nQD0-"
        "5eKx{uGTr?qCMv)1T#+x_%QtJ}M2Kcu(w>znIaDyMHuXHMyh)%5@R2Q#;K)B"
    ),
    "twice_in_struct": (
        "c-"
        "n<h%StOj5Up;9Axaie?4cWGk%bPq5MO}=6<yQ>#bDGV;FT=H5Jp8!%&1Xt=|{M5>B5B{<)>KHAsJD*w_r|n_o+U8im3*+)|8`iYQ"
        "9bh<^VFj002p!0yU?+qNQEs`r6@B?J(~_;mdAzmS8&12aXg|lCI1vJyx7q;F^1ehwqvdD2N9w?tdzndKt8vM5o=$j*?K8S|rK=B^"
        "RZ3qTU69%8r+dQ1{uCV|-H#z*o|g!OfY1NGz|U=Xfu|dlkWYkok8bhRxA4+<uPI)*shY$Q7}yoc%@l(R&iXhX~%q*M5Eok-dqO_e"
        ">XqjQ1wN_&STN*3rr4s9F6kS2#9eq-"
        "f$O_7R5|#<+_ZW7Sd^hKL8es3O+vL7FLcCUD&#y&<cuwt2sY6X`0$aeB#O#I=X#?BbZgzSXjPl$NHCv`ZUFvpL>3M?Ar<_0z_1IP"
        "$rZ_7mc%&GCQqYTS3#T8_sxVJ)rS2A%JB2G_UUo297VU+N47y<z^YJ4nuYSNT$9d3AZs6lpqmK>pI7ZqUSk0_p3Ag8"
    ),
    "twice_in_list": (
        "c-n<i-"
        "A)=o6h1SZY)L~>Y@E$ZvN6QejZM%Z2?QH&W)ZLvTO_3>y`yAHHLD=df^X1EAETFE_R<INA$$NIqUQ|m;!l4j*)uceeBXC|GTSt*4"
        "Jl+sE;ew37XT@b0RYEOf?SfzIU9DQ<0(O2B`EH~>Ydxd0-EP#atKQmf<56#T$C!-efE-&Q!-}{l}oV7&J>&eO-DyXP|m3PH9YP}4"
        "n?k5B)N1NTZkzNC8ER8coujXM&WUIGL`})U*Sr0`;h^ej*lzQ@Th*FJ)QHxlUx_U$><#xS(TV?!IHbe{mI-"
        "5=9m4{zXzbH9n48%%iy;4$`_zNg6#!>Ql<Zw>IZYrnSaClU+nHo9!X>M_r%=`Wcw-il7seC+O%5l58lkirLOsFS`!l(WA@E#?HYr"
        "Qo~aqrGnJn81qj%qL&cc4)-m64RTJ~2Y4uQT(x!Xe#`hCwHNgiXI-"
        "L@}^Z`wo{O{_wNfIdKuUURO5vfP{PX~D$E)ah+;nyrFn9TV}{^00yVH(8uU|w{al3>3()OQ@5t!kzEu%18a^~|=NNB0(L;dXMMvV"
        "+d>^jkPy>kbBMo#C)Q$$k%qqr?75woqEnuW#raK011LSNLX{_|N?Y*sQ0L"
    ),
    "map_twice": (
        "c-nnaQEL-H5T4zvN0or7xW^tG5+pe)Tx(mr5F~xri%D8dG(9kFMJPuT5{<EG(lq)HeDu-Z;bVV-"
        "PvWof(V0yy3054qnc1Chzi(#QYwBo63VC0uItI80a3{wApieHAARowwzO-ZpKg%t^2J0&pudieEZjqx;aq<>tDS-"
        "q^x^+YnPueF61HliOvNE@1Qi67sAdC$gD=WjDDXnm)cq#`{IBx?`*7&T~8N`x9z!e)vE_vNYP$1Ope&_S)Rs3Pnkpg5o4=RN_d8o"
        "Uj&+}Z}GF7mJ<2t?vu1q@tSQ)3t2Ft^ANOIe<zcBkN^Ge>@>e!A?*M#!uG8js><#>WS1?&@Lh?M_>bf#=*zcc%qc|V!=js5=?Zb&"
        "^Mp(@Oj>}zfdZ_WO}!EseuN71XJr?bmZzxiXbPde0EAL^OC(0Z!FuC8j`)#a|)3lY$uq^$LU*;q!j%EDbVk#CAgRC!J7nyDWypp^"
        "wayrir}_$Tkt6>0ghHWyhyNq^sDeM3UrwbrD)|9tr7xS@MZ(?2zf{hUy}F+ZHl6YAcAY2L4~D!KNcI&L4CRu5?IvQg_Mm@pZ#n#_"
        "BXUx$$iCx7ujBNy+s0)mFgJjV9+KxK#V=wi~j+&mi&H{;Rhe44%LjK=TIKW29eTiaVZj*st=p5!ll+)e!b{s60Dtda"
    ),
}


def by_pyarrow(name: str) -> bytes:
    return zlib.decompress(b85decode(_FILES[name]))
