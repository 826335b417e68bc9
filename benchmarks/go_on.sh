# To be sourced. A run that goes on from another under settings that its own config has, in a folder of its own.

go_on() {  # FROM TO: TO begins as FROM ended, without what FROM was measured by; nothing if TO is there
  [ -d "$2" ] && return
  rm -rf "$2.part"
  cp -r "$1" "$2.part"
  rm -rf "$2.part/predictions" "$2.part/samples"
  mv "$2.part" "$2"
}
