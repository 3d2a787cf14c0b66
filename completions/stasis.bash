# Completion of stasis for bash. Written by `make generate` from the definition of the command line.

_stasis() {
    local current=${COMP_WORDS[COMP_CWORD]} verb='' options='' expected='' option='' word i
    local root=()
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        # What stands before and behind "=" are words of their own, unless COMP_WORDBREAKS has been changed.
        if [[ $word == = ]]; then expected=${expected:-value} && continue; fi
        if [[ -n $expected ]]; then
            [[ $option != --root ]] || root=(--root "$word")
            expected='' && continue
        fi
        option=$word
        case $word in
        --root=*) root=(--root "${word#*=}") ;;
        --bundle|--config|--console-socket|--cwd|--external-tmpfs|--file|--image-path|--log|--parent-path|--pid-file|--pidfd-socket|--process|--resources|--root|--work-path|-b|-p) expected=path ;;
        --additional-gids|--apparmor|--blkio-weight|--cap|--cgroup|--cgroup-manager|--cpu-burst|--cpu-idle|--cpu-period|--cpu-quota|--cpu-rt-period|--cpu-rt-runtime|--cpu-share|--cpuset-cpus|--cpuset-mems|--empty-ns|--env|--format|--ghost-limit|--interval|--ipc|--l3-cache-schema|--log-format|--log-level|--lsm-mount-context|--lsm-profile|--manage-cgroups-mode|--mem-bw-schema|--memory|--memory-reservation|--memory-swap|--network-lock|--page-server|--pids-limit|--preserve-fds|--process-label|--progress|--shm-policy|--shm-size|--status-fd|--user|-c|-e|-g|-u) expected=value ;;
        -*)
            # What means one thing to some verbs and another to others.
            case "$verb $word" in
            'create -f'|'restore -f'|'run -f'|'spec -f'|'update -r') expected=path ;;
            ' --rootless'|'checkpoint --rootless'|'create --rootless'|'delete --rootless'|'events --rootless'|'exec --rootless'|'features --rootless'|'inspect-image -f'|'inspect-image --rootless'|'kill --rootless'|'list -f'|'list --rootless'|'pause --rootless'|'ps -f'|'ps --rootless'|'restore --rootless'|'resume --rootless'|'run --rootless'|'start --rootless'|'state --rootless'|'update --rootless') expected=value ;;
            esac
            ;;
        *) verb=${verb:-$word} ;;
        esac
    done
    if [[ $current == = ]]; then current='' expected=${expected:-value}; fi
    case $expected in
    path)
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
        return
        ;;
    value) return ;;
    esac
    if [[ -z $verb ]]; then
        mapfile -t COMPREPLY < <(compgen -W 'checkpoint create delete events exec features inspect-image kill list pause ps restore resume run spec start state update help --debug --log --log-format --log-level --root --systemd-cgroup --cgroup-manager --rootless --help -h --version -v -V' -- "$current")
        return
    fi
    case $current in
    -*)
        case $verb in
        checkpoint) options='--image-path --work-path --tcp-established --tcp-close --ext-unix-sk --shell-job --file-locks --auto-dedup --lazy-pages --manage-cgroups-mode --empty-ns --network-lock --progress --parent-path --leave-running --tcp-skip-in-flight --link-remap --status-fd --page-server --ghost-limit --external-tmpfs --pre-dump' ;;
        create) options='--bundle -b --console-socket --pidfd-socket --pid-file --no-pivot --no-new-keyring --preserve-fds --config -f' ;;
        delete) options='--force -f --regex -r' ;;
        events) options='--interval --stats' ;;
        exec) options='--console-socket --pidfd-socket --cwd --env -e --tty -t --user -u --additional-gids -g --process -p --detach -d --pid-file --process-label --apparmor --no-new-privs --cap -c --preserve-fds --cgroup --ignore-paused' ;;
        features) options='' ;;
        inspect-image) options='--format -f --files' ;;
        kill) options='--all -a --regex -r' ;;
        list) options='--format -f --quiet -q' ;;
        pause) options='' ;;
        ps) options='--format -f' ;;
        restore) options='--bundle -b --console-socket --pidfd-socket --pid-file --no-pivot --no-new-keyring --preserve-fds --config -f --image-path --work-path --tcp-established --tcp-close --ext-unix-sk --shell-job --file-locks --auto-dedup --lazy-pages --manage-cgroups-mode --empty-ns --network-lock --progress --detach -d --no-subreaper --lsm-profile --lsm-mount-context --shm-policy' ;;
        resume) options='' ;;
        run) options='--bundle -b --console-socket --pidfd-socket --pid-file --no-pivot --no-new-keyring --preserve-fds --config -f --detach -d --keep --no-subreaper' ;;
        spec) options='--bundle -b --rootless --file -f --ipc --shm-size' ;;
        start) options='' ;;
        state) options='' ;;
        update) options='--resources -r --blkio-weight --cpu-period --cpu-quota --cpu-burst --cpu-share --cpu-rt-period --cpu-rt-runtime --cpuset-cpus --cpuset-mems --cpu-idle --memory --memory-reservation --memory-swap --pids-limit --l3-cache-schema --mem-bw-schema' ;;
        esac
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$current")
        return
        ;;
    esac
    case $verb in
    checkpoint|delete|events|exec|kill|pause|ps|resume|start|state|update)
        mapfile -t COMPREPLY < <(compgen -W "$("${COMP_WORDS[0]}" "${root[@]}" list --quiet 2>/dev/null)" -- "$current")
        ;;
    *) mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
    esac
}
complete -o filenames -F _stasis stasis
